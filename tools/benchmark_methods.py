"""Measure a training step of each method on the same names, with random weights; on Linux, whose /proc counts memory.

    python tools/benchmark_methods.py --output docs/results/methods_benchmark.json
    python tools/benchmark_methods.py --vocabularies imagenet1k --rows coop,pomp --device cuda --output methods_gpu.json
    python tools/benchmark_methods.py --smoke

Each row has the published batch size of its method. CoOp's step is the full softmax over all names, in chunks; POMP
samples K = 128 of up to 2,000 names, and K = 1000 of more. Both are measured on the shared-prefix encoder and on all 77
tokens. Ensembles, and CoOp on 77 tokens or with a context for each class, are measured on the first --reference-names:
every pass is the same work, so the time for all names is extrapolated, and the row says so. "s once" is the time for
texts that never change. LASP's text-to-text loss compares all classes of a step with each other, so beyond 2,000 names
it is measured on K of them. A row whose method has no step, does not fit the model or runs out of memory says so.
--smoke measures the embedded model on a dozen names, to check that everything works.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from pomp_lab.arguments import chosen
from pomp_lab.benchmarks.harness import add_option
from pomp_lab.benchmarks.method_rows import ROWS, make_steps, print_rows, scale_times
from pomp_lab.benchmarks.methods import MethodStep, load_names, measure_rows
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.evaluation.protocol import package_versions, processor_name, run_description
from prompt_core.files import check_writable, write_json
from prompt_core.visible import say


def main() -> None:
    """Parse, measure, write after each list of names, print."""
    options = parse()
    rows = chosen(options.rows, ROWS, "row", ",")
    if options.smoke:
        options.clip, options.vocabularies, options.names, options.repeats = "mini", "coco", 12, 1
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device is {options.device!r} but no GPU is usable here; use cpu")
    if options.output:
        check_writable(options.output)
    groups = {}
    for vocabulary in options.vocabularies.split(","):
        base = MethodStep(options.clip, vocabulary, options.names, device=options.device, threads=options.threads)
        groups[vocabulary] = make_steps(rows, base, options.reference_names)
    gpu = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else None
    set_up = {"clip": options.clip, "device": options.device, "gpu": gpu, "cpu": processor_name()}
    set_up |= {"threads": options.threads, "versions": package_versions(), "command": run_description()["command"]}
    report: dict[str, Any] = {"set_up": set_up, "rows": []}
    for vocabulary, steps in groups.items():
        say(f"{next(iter(steps))} and others", error=True)
        measured = measure_rows(steps, options.repeats)
        scale_times(measured, len(load_names(vocabulary, options.names)))
        report["rows"] += measured
        if options.output:
            write_json(options.output, report)
    print_rows(report["rows"])
    if options.output:
        say(f"numbers written to {Path(options.output)}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", metavar="ROW,ROW", help=f"some of {','.join(ROWS)} (default: all)")
    parser.add_argument("--output", metavar="FILE", help="JSON for the results (default: they are only printed)")
    add_option(parser, "--clip", "ViT-B-16-quickgelu", "architecture or its JSON file", str, "NAME")
    add_option(parser, "--vocabularies", "imagenet1k,imagenet21k", "lists of names", str, "NAME,…")
    add_option(parser, "--names", None, "take the first N names of each list")
    add_option(parser, "--reference-names", 1000, "names that slow rows are measured on")
    add_option(parser, "--repeats", 3, "measurements of each row")
    add_option(parser, "--threads", torch.get_num_threads(), "torch threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--smoke", action="store_true", help="measure the embedded model on a dozen names, once")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
