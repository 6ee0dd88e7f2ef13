"""Measure a training step of each method on the same names, with random weights (on Linux; on a GPU with --device).

    python tools/benchmark_methods.py --output docs/results/methods_benchmark.json
    python tools/benchmark_methods.py --vocabularies imagenet1k --rows coop,pomp --device cuda --output methods_gpu.json
    python tools/benchmark_methods.py --smoke

Each row has the published batch of its method. CoOp's step is the full softmax over all names in chunks, POMP's takes K
= 1000 of a large list and K = 128 of one of up to 2,000 names; both are measured on the shared-prefix encoder and on
all 77 tokens. Ensembles and CoOp on 77 tokens or with a context for each class are measured on the first
--reference-names: every pass is the same work, so that the time of all names is scaled from it, which the row says.
"once" is the time of texts that never change. LASP's text-to-text loss compares all classes of a step with each other,
so that beyond 2,000 names it is measured on K of them, a step of K classes. Rows that have no step, that do not go with
the model, or that fail for memory, say so. --smoke measures the embedded model on a dozen names, to see that all works.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from pomp_lab.benchmarks.methods import Job, load_names, measure_rows
from prompt_core.command_line import ArgumentParser, print_table
from prompt_core.errors import UserError, nearest, run_command
from prompt_core.evaluation.protocol import package_versions, processor_name, run_description
from prompt_core.files import check_writable, write_json

FULL_CHUNK = "256"  # names per pass of the full softmax
REFERENCE_CHUNK = "128"  # names per pass of 77 tokens
LARGE = 2000  # names; longer lists take more sampled classes, and LASP's step some of them
SAMPLED = {False: "128", True: "1000"}  # K of short and of large lists
FULL = {"LOSS.NUM_CLASSES": "0", "LOSS.CHUNK": FULL_CHUNK}
LOCAL = {"LOSS.NUM_CLASSES": "K"}
WORDS = {"PROMPT.N_CTX": "4", "PROMPT.INIT": "a photo of a"}
# Row: method, images of a step, settings, and whether all 77 tokens are run.
ROWS: dict[str, tuple[str, int, dict[str, str], bool]] = {
    "zero_shot": ("zero_shot", 32, {}, False),
    "ensemble": ("ensemble", 32, {}, False),
    "ensemble_80": ("ensemble", 32, {"METHOD.ENSEMBLE.TEMPLATES": "imagenet"}, False),
    "linear_probe": ("linear_probe", 32, {"LOSS.NUM_CLASSES": "0"}, False),
    "logistic_regression": ("logistic_regression", 32, {"LOSS.NUM_CLASSES": "0"}, False),
    "coop": ("coop", 32, FULL, False),
    "coop_class_specific": ("coop", 32, {**FULL, "PROMPT.CLASS_SPECIFIC": "True"}, False),
    "coop_77_tokens": ("coop", 32, {**FULL, "LOSS.CHUNK": REFERENCE_CHUNK}, True),
    "pomp": ("pomp", 32, LOCAL, False),
    "pomp_77_tokens": ("pomp", 32, {**LOCAL, "LOSS.CHUNK": REFERENCE_CHUNK}, True),
    "cocoop": ("cocoop", 1, {**FULL, **WORDS}, False),
    "maple": ("maple", 4, {**FULL, "METHOD.MAPLE.DEPTH": "3"}, False),
    "maple_9_blocks": ("maple", 4, {**FULL, "METHOD.MAPLE.DEPTH": "9"}, False),
    "vpt": ("vpt", 4, {"LOSS.NUM_CLASSES": "0"}, False),
    "vpt_shallow": ("vpt", 4, {"LOSS.NUM_CLASSES": "0", "METHOD.VPT.DEPTH": "1"}, False),
    "lasp": ("lasp", 1, {**FULL, **WORDS}, False),
}
# Many passes of the same work, each slow.
SCALED = ("ensemble", "ensemble_80", "coop_class_specific", "coop_77_tokens")


def make_jobs(options: argparse.Namespace, vocabulary: str, names: int | None) -> dict[str, Job]:
    """The rows that were asked for, on one list of names."""
    count = len(load_names(vocabulary, names))
    jobs = {}
    for row in options.rows.split(","):
        if row not in ROWS:
            raise UserError(f"unknown row {row!r}; expected some of {', '.join(ROWS)}{nearest(row, ROWS)}")
        method, images, settings, reference = ROWS[row]
        scaled = row in SCALED and count > options.reference_names
        taken = options.reference_names if scaled else names
        if method == "lasp" and count > LARGE:
            settings, taken = {**settings, **LOCAL}, int(SAMPLED[True])
        settings = {key: SAMPLED[count > LARGE] if value == "K" else value for key, value in settings.items()}
        jobs[f"{row}, {count} names"] = Job(
            options.clip, vocabulary, taken, method, images, settings, reference, options.device, options.threads
        )
    return jobs


def scale_times(rows: list[dict[str, Any]], count: int) -> None:
    """Add to rows of the first names alone the times that ``count`` names take, ``scaled_seconds`` and the like."""
    for row in rows:
        if "not_measured" in row or row["names"] >= count:
            continue
        times = count / row["names"]
        row |= {"scaled_to_names": count, "scaled_prepare_seconds": row["prepare_seconds"]["median"] * times}
        # A step of K classes takes no longer where there are more to draw from.
        sampled = row["settings"].get("LOSS.NUM_CLASSES", "0") != "0"
        row["scaled_seconds"] = row["seconds"]["median"] * (1 if sampled else times)
        if row["settings"].get("PROMPT.CLASS_SPECIFIC") == "True":
            row["learned_parameters"] = row["learned_parameters"] // row["names"] * count


def print_rows(rows: list[dict[str, Any]]) -> None:
    """One line per row."""
    headings = ("row", "learned", "classes in a step", "images", "s once", "s per step", "extra MiB")
    table = Table(*headings, title="training step")
    for row in rows:
        if "not_measured" in row:
            table.add_row(row["row"], "", "", str(row["images"]), "", "not measured", row["not_measured"])
            continue
        classes, once, time = row["classes_in_step"], row["prepare_seconds"]["median"], row["seconds"]["median"]
        note = ""
        if "scaled_seconds" in row:
            once, time = row["scaled_prepare_seconds"], row["scaled_seconds"]
            classes = row["scaled_to_names"] if time > row["seconds"]["median"] else classes
            note = f" (scaled from {row['names']:,} names)"
        memory = f"{row['extra_bytes']['median'] / 2**20:.0f}"
        numbers = (f"{row['learned_parameters']:,}", f"{classes:,}", str(row["images"]), f"{once:.3g}")
        table.add_row(row["row"], *numbers, f"{time:.3g}{note}", memory)
    print_table(table)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is expected, given {text!r}")
    return int(text)


def main() -> None:
    """Parse, measure, write after each list of names, print."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help=f"some of {','.join(ROWS)} (default: all)")
    parser.add_argument("--output", metavar="FILE", help="JSON for the results; without it they are only printed")
    parser.add_argument("--clip", default="ViT-B-16-quickgelu", help="architecture, or its JSON file")
    parser.add_argument("--vocabularies", default="imagenet1k,imagenet21k", help="where the names come from")
    parser.add_argument("--names", type=_positive, help="the first N names of each (default: all)")
    parser.add_argument(
        "--reference-names", type=_positive, default=1000, help="names of the slowest rows, the rest is scaled (1000)"
    )
    parser.add_argument("--repeats", type=_positive, default=3, help="measurements of each row (default: 3)")
    parser.add_argument("--threads", type=_positive, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--smoke", action="store_true", help="the embedded model, a dozen names, once")
    options = parser.parse_args()
    if options.smoke:
        options.clip, options.vocabularies, options.names, options.repeats = "mini", "coco", 12, 1
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device is {options.device!r} but no GPU is usable here; use cpu")
    if options.output:
        check_writable(options.output)
    groups = {
        vocabulary: make_jobs(options, vocabulary, options.names) for vocabulary in options.vocabularies.split(",")
    }
    gpu = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else None
    set_up = {"clip": options.clip, "device": options.device, "gpu": gpu, "cpu": processor_name()}
    set_up |= {"threads": options.threads, "versions": package_versions(), "command": run_description()["command"]}
    rows: list[dict[str, Any]] = []
    for vocabulary, jobs in groups.items():
        print(next(iter(jobs)), "and others", file=sys.stderr, flush=True)
        found = measure_rows(jobs, options.repeats)
        scale_times(found, len(load_names(vocabulary, options.names)))
        rows += found
        if options.output:
            write_json(options.output, {"set_up": set_up, "rows": rows})
    print_rows(rows)
    if options.output:
        print(f"numbers written to {Path(options.output)}")


if __name__ == "__main__":
    run_command(main)
