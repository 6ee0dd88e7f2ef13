"""Measure LVIS scoring by hotcoco against lvis-api on the same synthetic files, and compare their 13 numbers.

    python tools/benchmark_scoring.py --images 2000 --output docs/results/lvis_scoring.json

Each scorer runs in a process of its own and is timed from reading the files to the numbers. The exit code is 1 when the
numbers differ by more than 1e-9.
"""

import argparse

from pomp_lab.benchmarks.harness import add_option, machine_description
from prompt_core.command_line import ArgumentParser, whole_number
from prompt_core.errors import run_command
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import check_writable, write_json
from prompt_core.ranges import SEED


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
    add_option(parser, "--images", 2000, "synthetic images")
    add_option(parser, "--classes", 1203, "classes")
    add_option(parser, "--detections", 300, "detections per image")
    add_option(parser, "--tasks", "bbox", "bbox, segm or bbox,segm", str, "TASK,…")
    add_option(parser, "--seed", 0, "seed of the synthetic files", whole_number(SEED))
    add_option(parser, "--repeats", 1, "measurements of each scorer")
    parser.add_argument("--output", metavar="FILE", help="JSON for the results (default: they are only printed)")
    options: argparse.Namespace = parser.parse_args()
    return options


if __name__ == "__main__":
    run_command(main)
