"""Measure the text side against open_clip's own, with random weights; on Linux, whose /proc counts memory.

    python tools/benchmark_text.py --output docs/results/text_benchmark.json
    python tools/benchmark_text.py --parts classifier --classifier-names 1000 --output docs/results/text_benchmark.json
    python tools/benchmark_text.py --device cuda --precision bfloat16 --parts steps,k128,k1000,full --output gpu.json

steps       training steps on 128 and 1,000 names: how close each is to the speed of a plain matrix product
k128        a training step on 128 names: time and memory, against all 77 tokens of each through open_clip's tower
k1000       the same on 1,000 names, against 77 tokens in chunks
full        a step on every name with the exact gradient, in chunks: memory, and time per name against 1,000 names
classifier  a classifier file for every name, against open_clip.build_zero_shot_classifier
crossover   packed against truncated suffixes on small towers, where many small calls cost more than they save
attention   one layer's attention by plain products, as the encoder has it, and by torch's fused kernels
compiled    a training step on 128 names with its blocks compiled by torch; minutes for the compiler alone

Parts that an earlier run with the same settings measured stay in the output: they may be run one after another.
"""

import argparse
from typing import Any

import torch

from pomp_lab.arguments import chosen
from pomp_lab.benchmarks.harness import add_option
from pomp_lab.benchmarks.text import TextWork
from pomp_lab.benchmarks.text_parts import PARTS, Options, check_targets, load_parts, print_report, set_up
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import run_command
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import write_json
from prompt_core.visible import say


def main() -> None:
    """Parse, measure part after part, write after each, print."""
    arguments = parse()
    names = chosen(arguments.parts, PARTS, "part", ",")
    base = TextWork(
        arguments.clip,
        arguments.vocabulary,
        arguments.threads,
        device=arguments.device,
        precision=arguments.precision,
    )
    options = Options(arguments.repeats, arguments.classifier_names, arguments.chunk_size)
    setting = set_up(base)
    parts: dict[str, Any] = load_parts(arguments.output, setting) if arguments.output else {}
    report: dict[str, Any] = {}
    for part in names:
        say(part, error=True)
        parts[part] = {"command": run_description()["command"], **PARTS[part](base, options)}
        report = {"set_up": setting, "targets": check_targets(parts), "parts": parts}
        if arguments.output:
            write_json(arguments.output, report)
    print_report(report)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", metavar="PART,PART", help=f"some of {','.join(PARTS)} (default: all)")
    parser.add_argument("--output", metavar="FILE", help="JSON for the results (default: they are only printed)")
    add_option(parser, "--repeats", 3, "measurements of each side")
    add_option(parser, "--threads", torch.get_num_threads(), "torch threads")
    add_option(parser, "--classifier-names", None, "names to time open_clip's classifier on")
    add_option(parser, "--chunk-size", 256, "names per pass of part full")
    add_option(parser, "--clip", "ViT-B-16-quickgelu", "architecture or its JSON file", str, "NAME")
    add_option(parser, "--device", "cpu", "cpu, cuda or cuda:N", str, "NAME")
    add_option(parser, "--precision", "float32", "of the towers' products: float32 or bfloat16", str, "NAME")
    add_option(parser, "--vocabulary", "imagenet21k", "list of names", str, "NAME")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
