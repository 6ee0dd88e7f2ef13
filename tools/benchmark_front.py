"""Measure pomp classify, detect and segment on a folder of photos: photos a second, and memory as their number grows.

    python tools/benchmark_front.py --task classify --words imagenet21k --photos 200 --output front_speed.json
    python tools/benchmark_front.py --task detect --photos 1000 --megapixels 12 --no-pictures --output front_speed.json

The photos are shipped ones, enlarged, and links to them. Each run adds a row to the file, or a repeat to the row of the
same task, words, size, pictures and threads, which keeps its fastest. Times on a machine that others use are upper
bounds, so that the processor's time for a photo is written too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pomp_lab.benchmarks.harness import add_option, machine_description
from prompt_core.command_line import ArgumentParser, real_number
from prompt_core.errors import run_command
from prompt_core.files import check_writable, read_json, write_json
from prompt_core.ranges import Range
from prompt_core.visible import say

TASKS = ("classify", "detect", "segment")
REPEATED = ("load_seconds", "photos_per_second", "cpu_seconds_per_photo")
WORDS = "person,car,bus,bicycle,dog,cat,bird,chair,table,bottle,cup,book,clock,laptop,tree,road,sky,grass,building,boat"


def main() -> None:
    """Parse, measure in this process, add a row to the file."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--words", default=WORDS, help="as pomp takes them (default: 20)")
    add_option(parser, "--photos", 100, "photos in the folder")
    add_option(parser, "--threads", 2, "threads of torch")
    parser.add_argument("--megapixels", type=real_number(Range(0.01, 150)), default=0.3, help="of each (default: 0.3)")
    parser.add_argument("--no-pictures", action="store_true", help="documents alone")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON with a row for each run")
    arguments = parser.parse_args()
    check_writable(arguments.output)
    from pomp_lab.benchmarks.front import measure_folder

    pictures = not arguments.no_pictures
    row = measure_folder(
        arguments.task, arguments.words, arguments.photos, arguments.megapixels, pictures, arguments.threads
    )
    document = read_json(arguments.output) if arguments.output.is_file() else {}
    drawn = "with pictures" if pictures else "without pictures"
    size = f"{arguments.megapixels:g} megapixels"
    name = f"{arguments.task}, {row['words']} words, {size}, {drawn}, {arguments.threads} threads"
    row["machine"] = machine_description("supervision")
    document[name] = with_repeats(row, document.get(name))
    write_json(arguments.output, document)
    memory = f", memory {row['resident_bytes']['ratio']:.3f} times" if "resident_bytes" in row else ""
    times = f"{row['photos_per_second']} photos a second, {row['cpu_seconds_per_photo']} s of processor each"
    say(f"{name}: {times}{memory}")


def with_repeats(row: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """The faster of a run and those before, with what each needed."""
    of_run = {"load_average": row["machine"]["load_average"], **{name: row[name] for name in REPEATED}}
    repeats = [*before["repeats"], of_run] if before else [of_run]
    fastest = before if before and before["photos_per_second"] > row["photos_per_second"] else row
    return {**fastest, "repeats": repeats}


if __name__ == "__main__":
    run_command(main)
