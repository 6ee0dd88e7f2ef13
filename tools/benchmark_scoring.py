"""Measure LVIS scoring by hotcoco against lvis-api on the same synthetic files, and compare their 13 numbers.

    python tools/benchmark_scoring.py --images 2000 --output docs/results/lvis_scoring.json

Each scorer runs in a process of its own; times go from the files to the numbers. The exit code is 1 when the numbers
differ by more than 1e-9.
"""

import argparse
import sys
from typing import Any

from rich.table import Table

from prompt_core.command_line import ArgumentParser, print_table
from prompt_core.errors import UserError, run_command
from prompt_core.files import check_writable, write_json

WANTED = 10.0  # times as fast as lvis-api


def main() -> int:
    """Parse, measure task after task, write and print."""
    options = parse()
    if options.output:
        check_writable(options.output)
    from pomp_lab.benchmarks.lvis_scoring import compare_scorers
    from pomp_lab.benchmarks.machine import machine_description
    from prompt_core.evaluation.protocol import run_description

    machine = machine_description("hotcoco", "lvis", "pycocotools")
    tasks = {
        task: compare_scorers(
            options.images,
            options.classes,
            options.detections,
            task,
            options.seed,
            options.repeats,
            lambda line: print(f"  {line}", file=sys.stderr, flush=True),
        )
        for task in dict.fromkeys(options.tasks.split(","))
    }
    report = {
        "set_up": {"command": run_description()["command"], "seed": options.seed, **machine},
        "targets": [
            {
                "task": task,
                "meaning": "times as fast as lvis-api",
                "measured": found["ratio"],
                "wanted": f"at least {WANTED:g}",
                "met": found["ratio"] >= WANTED,
            }
            for task, found in tasks.items()
        ],
        "tasks": tasks,
    }
    if options.output:
        write_json(options.output, report)
    print_report(report)
    return 0 if all(found["agree"] for found in tasks.values()) else 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=_positive, default=2000, help="synthetic images (default: 2000)")
    parser.add_argument("--classes", type=_positive, default=1203, help="classes (default: 1203)")
    parser.add_argument("--detections", type=_positive, default=300, help="detections of an image (default: 300)")
    parser.add_argument("--tasks", default="bbox", help="bbox, segm or both joined by a comma (default: bbox)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the annotations and detections (default: 0)")
    parser.add_argument("--repeats", type=_positive, default=1, help="measurements of each scorer (default: 1)")
    parser.add_argument("--output", metavar="FILE", help="JSON for the results; without it they are only printed")
    options: argparse.Namespace = parser.parse_args()
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; a number from 0 is expected")
    return options


def print_report(report: dict[str, Any]) -> None:
    """Times of both scorers, their ratio, and whether their numbers agree."""
    table = Table("task", "scorer", "seconds", "loading", "evaluation", "processor seconds")
    for task, found in report["tasks"].items():
        for side in ("hotcoco", "lvis-api"):
            times = (found[side][name]["median"] for name in ("seconds", "load", "evaluate", "processor_seconds"))
            table.add_row(task, side, *(f"{each:.3g}" for each in times))
    print_table(table)
    for target in report["targets"]:
        found = report["tasks"][target["task"]]
        numbers = f"{found['images']:,} images, {found['classes']:,} classes, {found['detections']:,} detections"
        print(
            f"{target['task']}: {target['measured']:.1f} {target['meaning']} ({found['evaluate_ratio']:.1f} without "
            f"loading) on {numbers}; wanted: {target['wanted']}; {'met' if target['met'] else 'missed'}"
        )
        if found["agree"]:
            print(f"{target['task']}: all {len(found['hotcoco']['numbers'])} numbers agree to 1e-9")
        else:
            print(f"{target['task']}: THE NUMBERS DIFFER, by up to {found['largest_difference']}")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is expected, given {text!r}")
    return int(text)


if __name__ == "__main__":
    run_command(main)
