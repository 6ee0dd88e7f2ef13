"""Measure what several processes of one thread each gain, with random weights of ViT-B/16.

    python tools/benchmark_ranks.py --output docs/results/ranks.json

step    a training step of 32 images on K = 1,000 of 21,843 names
full    the same over all names, in chunks: the full softmax, shared by classes
photos  photos through the image tower into a cache of features
sent    the transfers of a step of 1,000 names alone

Parts that an earlier run measured stay in the output. At the end: what the parts say on paper about more processes.
"""

import argparse
from pathlib import Path
from typing import Any

from pomp_lab.arguments import chosen
from pomp_lab.benchmarks.harness import add_option, machine_description, positives
from pomp_lab.benchmarks.ranks_report import FORMULA, Machines, check_speed, estimates, measure_part
from pomp_lab.benchmarks.ranks_speed import RanksWork
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import run_command
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import read_json, write_json
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

# What is assumed of machines that are not here.
NETWORK = {"bandwidth": 1.25e9, "latency": 5e-5}  # 10 gigabit Ethernet
NVLINK = {"bandwidth": 2e11, "latency": 1e-5}
GPU_RATE = 2e14  # operations a second that a GPU reaches in bfloat16, a fifth of an H100's peak
GPU_FIXED = 0.005  # seconds


def main() -> None:
    """Parse, measure part after part, write after each, print."""
    arguments = parse()
    base = {"clip": arguments.clip, "vocabulary": arguments.vocabulary}
    jobs = {
        "step": RanksWork("step", **base, names=arguments.names, calls=3),
        "full": RanksWork("step", **base, names=0, chunk_size=arguments.chunk_size, calls=1),
        "photos": RanksWork("photos", **base, photos=arguments.photos, calls=2),
        "sent": RanksWork("reductions", **base, names=arguments.names, calls=20),
    }
    parts: dict[str, Any] = {}
    if arguments.output and Path(arguments.output).exists():
        parts = read_json(arguments.output)["parts"]
    for name in chosen(arguments.parts, jobs, "part", ","):
        say(name, error=True)
        measured = measure_part(jobs[name], arguments.processes, arguments.repeats)
        parts[name] = {"command": run_description()["command"], **machine_description(), **measured}
        report = {"targets": check_speed(parts), "parts": parts, **on_paper(parts, arguments.vocabulary)}
        if arguments.output:
            write_json(arguments.output, report)
    for row in check_speed(parts):
        say(f"{row['part']}: {row['measured']:.2f} {row['meaning']}, {row['wanted']} wanted")


def on_paper(parts: dict[str, Any], vocabulary: str) -> dict[str, Any]:
    """Estimates for 8 and 64 ranks, once a step by one and by two processes is measured."""
    if not {"1", "2"} <= parts.get("step", {"processes": {}})["processes"].keys():
        return {}
    facts, sides = parts["step"]["facts"], parts["step"]["processes"]
    one, two = (sides[size]["cpu_seconds"]["min"] for size in ("1", "2"))
    fixed = max(0.0, 2 * two - one)  # what a process does whatever its share is, its part of the transfers among it
    per_token = (one - fixed) / facts["tokens"]
    operations = 4.0 * (11 * 12 + 2) * facts["width"] ** 2  # of a token in 12 blocks, forward and backward
    here = "measured: one thread of this machine; assumed: 10 gigabit Ethernet, 50 us"
    there = (
        f"assumed: {GPU_RATE:.0e} operations a second, {GPU_FIXED} s, 200 GB/s, 10 us; operations of a token counted"
    )
    machines = [
        Machines("threads of this machine", per_token, fixed, **NETWORK, source=here),
        Machines("GPUs", operations / GPU_RATE, GPU_FIXED, **NVLINK, source=there),
    ]
    total = len(Vocabulary.load(vocabulary))
    rows = estimates(machines, facts["tokens"], facts["names"], total, (1, 2, 8, 64))
    return {"on_paper": {"formula": FORMULA, "machines": [vars(machine) for machine in machines], "rows": rows}}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", metavar="PART,PART", help="some of step,full,photos,sent (default: all)")
    parser.add_argument("--output", metavar="FILE", help="JSON for the results (default: they are only printed)")
    add_option(parser, "--repeats", 3, "measurements of each side")
    add_option(parser, "--processes", [1, 2], "numbers of processes", positives, "N,N")
    add_option(parser, "--names", 1000, "names of part step")
    add_option(parser, "--photos", 64, "photos of part photos")
    add_option(parser, "--chunk-size", 256, "names per pass of part full")
    add_option(parser, "--clip", "ViT-B-16-quickgelu", "architecture or its JSON file", str, "NAME")
    add_option(parser, "--vocabulary", "imagenet21k", "list of names", str, "NAME")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
