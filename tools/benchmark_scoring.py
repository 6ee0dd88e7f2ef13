"""Measure LVIS scoring by hotcoco against lvis-api on the same synthetic files, and compare their 13 numbers.

    python tools/benchmark_scoring.py --images 2000 --output docs/results/lvis_scoring.json

Each scorer runs in a process of its own and is timed from reading the files to the numbers. The exit code is 1 when the
numbers differ by more than 1e-9.
"""

import argparse

from pomp_lab.benchmarks.harness import machine_description, positive
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import check_writable, write_json


def main() -> int:
    """Parse, measure task after task, write and print."""
    options = parse()
    if options.output:
        check_writable(options.output)
    from pomp_lab.benchmarks.lvis_scoring import compare_scorers, print_report, scoring_report

    machine = machine_description("hotcoco", "lvis", "pycocotools")
    sizes = (options.images, options.classes, options.detections)
    tasks = {
        task: compare_scorers(*sizes, task, options.seed, options.repeats)
        for task in dict.fromkeys(options.tasks.split(","))
    }
    set_up = {"command": run_description()["command"], "seed": options.seed, **machine}
    report = scoring_report(tasks, set_up)
    if options.output:
        write_json(options.output, report)
    print_report(report)
    return 0 if all(result["agree"] for result in tasks.values()) else 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=positive, default=2000, metavar="N", help="synthetic images (default: 2000)")
    parser.add_argument("--classes", type=positive, default=1203, metavar="N", help="classes (default: 1203)")
    parser.add_argument(
        "--detections", type=positive, default=300, metavar="N", help="detections per image (default: 300)"
    )
    parser.add_argument("--tasks", default="bbox", metavar="TASK,…", help="bbox, segm or bbox,segm (default: bbox)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the synthetic files (default: 0)")
    parser.add_argument(
        "--repeats", type=positive, default=1, metavar="N", help="measurements of each scorer (default: 1)"
    )
    parser.add_argument("--output", metavar="FILE", help="JSON for the results (default: they are only printed)")
    options: argparse.Namespace = parser.parse_args()
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; a number from 0 is expected")
    return options


if __name__ == "__main__":
    run_command(main)
