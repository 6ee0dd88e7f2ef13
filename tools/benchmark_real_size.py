"""Measure ImageNet-21K's real size without its photos: time and memory of index, few shots, caches, epoch, evaluation.

    python tools/benchmark_real_size.py --output docs/results/real_size.json
    python tools/benchmark_real_size.py --share 100 --output runs/real_size.json

10,450 classes of 1,058 generated names, 16 shots with four views of random features, an epoch of a tiny random model
(K = 128), and 522,500 x 10,450 scores. It takes a quarter of an hour of one core, and 1.5 GB in the temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

from pomp_lab.benchmarks.harness import add_option, in_fresh_process, machine_description, target
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import run_command
from prompt_core.files import check_writable, write_json
from prompt_core.visible import say

LIMIT_GIB = 8


def main() -> None:
    """Parse, measure each stage, write the file."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser, "--share", 1, "this part of the photos: 100 for a hundredth")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON with a row for each stage")
    arguments = parser.parse_args()
    check_writable(arguments.output)
    from pomp_lab.benchmarks.real_size import RealSize, measure_stages, score_memory, shown

    size = RealSize().part(arguments.share)
    with tempfile.TemporaryDirectory(prefix="real_size_") as folder:
        stages = measure_stages(Path(folder), size)
    counts = [size.val // 16, size.val // 4]
    growth = {count: in_fresh_process(score_memory, count, size.classes)["extra_bytes"] for count in counts}
    peak = max(stage["peak_bytes"] for stage in stages.values()) / 2**30
    document = {
        "size": {**asdict(size), "train": size.train, "val": size.val},
        "stages": stages,
        "scorer": {
            "all_scores_bytes": 4 * size.val * size.classes,
            "extra_bytes": {f"{count} images x {size.classes} classes": extra for count, extra in growth.items()},
        },
        "peak_gib": target(peak, high=LIMIT_GIB),
        "machine": machine_description("numpy"),
    }
    write_json(arguments.output, document)
    for name, stage in stages.items():
        say(f"{name}: {shown(stage)}")
    say(
        f"largest peak {peak:.2f} GiB, wanted: at most {LIMIT_GIB}; all scores at once would be "
        f"{document['scorer']['all_scores_bytes'] / 2**30:.1f} GiB"
    )


if __name__ == "__main__":
    run_command(main)
