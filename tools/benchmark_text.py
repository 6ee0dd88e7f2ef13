"""Measure the text side against open_clip's own, with random weights (on Linux, for its account of memory).

    python tools/benchmark_text.py --output docs/results/text_benchmark.json
    python tools/benchmark_text.py --parts classifier --classifier-names 1000 --output docs/results/text_benchmark.json

k128        a training step on 128 names: time and memory, against all 77 tokens of each through open_clip's tower
k1000       the same on 1,000 names, against 77 tokens in chunks
full        a step on every name with the exact gradient, in chunks: memory, and time per name against 1,000 names
classifier  a classifier file for every name, against open_clip.build_zero_shot_classifier
crossover   packed against truncated suffixes on small towers, where many small calls cost more than they save

Parts that an earlier run of the same set-up left in the output stay there, so parts can be run one after another.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from pomp_lab.benchmarks.text import BATCH, CONTEXTS, Job, measure_crossover, take_turns
from prompt_core.command_line import ArgumentParser, print_table
from prompt_core.errors import UserError, nearest, run_command
from prompt_core.evaluation.protocol import package_versions, processor_name, run_description
from prompt_core.files import check_writable, read_json, write_json
from prompt_core.text.encoder import PACKED_MINIMUM_WORK
from prompt_core.vocabulary import Vocabulary

SMALL, LARGE = 128, 1000  # names of k128 and k1000
REFERENCE_CHUNK = 128  # names per pass of 77 tokens
WIDTHS, COUNTS = (32, 64, 96, 128, 256, 512), (3, 10, 30, 100, 300, 1000)
CROSSOVER_WORK = 2e8  # per block; far beyond it packing wins on every tower, and a call takes seconds
# Part, value, what the value says, lower and upper bound.
TARGETS = (
    ("k128", "time_ratio", "times as fast as all 77 tokens", 25.0, None),
    ("k128", "memory_ratio", "times less extra memory", 12.0, None),
    ("k1000", "time_ratio", "times as fast as 77 tokens in chunks", 10.0, None),
    ("full", "peak_gib", "GiB of resident memory at the peak", None, 4.0),
    ("full", "time_per_name_ratio", "times the time per name of 1,000 names", None, 1.25),
    ("classifier", "template_ratio", "times as fast as open_clip, same template", 15.0, None),
    ("classifier", "prompt_ratio", "times as fast as open_clip, behind a learned prompt", 15.0, None),
)


def k128(base: Job, options: argparse.Namespace) -> dict[str, Any]:
    ours = replace(base, names=SMALL, warm=True)
    sides = take_turns({"shared_prefix": ours, "full_context": replace(ours, reference=True)}, options.repeats)
    memory = _median(sides["full_context"], "extra_bytes") / _median(sides["shared_prefix"], "extra_bytes")
    return {
        "time_ratio": _median(sides["full_context"]) / _median(sides["shared_prefix"]),
        "memory_ratio": memory,
        **sides,
    }


def k1000(base: Job, options: argparse.Namespace) -> dict[str, Any]:
    ours = replace(base, names=LARGE, warm=True)
    theirs = replace(base, names=LARGE, reference=True, chunk_size=REFERENCE_CHUNK)
    sides = take_turns({"shared_prefix": ours, "full_context": theirs}, options.repeats)
    return {"time_ratio": _median(sides["full_context"]) / _median(sides["shared_prefix"]), **sides}


def full(base: Job, options: argparse.Namespace) -> dict[str, Any]:
    jobs = {
        "one_pass": replace(base, names=LARGE, warm=True),
        "every_name": replace(base, chunk_size=options.chunk_size),
    }
    sides = take_turns(jobs, options.repeats)
    one_pass, every_name = (_median(side) / side["names"] for side in sides.values())
    peak = _median(sides["every_name"], "peak_bytes") / 2**30
    return {"peak_gib": peak, "time_per_name_ratio": every_name / one_pass, **sides}


def classifier(base: Job, options: argparse.Namespace) -> dict[str, Any]:
    jobs = {"open_clip": replace(base, work="open_clip", names=options.classifier_names)}
    jobs |= {work: replace(base, work=work) for work in ("template", "prompt")}
    sides = take_turns(jobs, options.repeats)
    names, timed = sides["template"]["names"], sides["open_clip"]["names"]
    theirs = _median(sides["open_clip"]) * names / timed
    note = f"open_clip's time: first {timed} names, scaled by {names} / {timed}" if timed < names else "all names timed"
    ratios = {f"{work}_ratio": theirs / _median(sides[work]) for work in ("template", "prompt")}
    return {**ratios, "open_clip_seconds": theirs, "note": note, **sides}


def crossover(base: Job, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(base.threads)
    vocabulary = Vocabulary.load(base.vocabulary)
    rows = measure_crossover(vocabulary, WIDTHS, COUNTS, 5 * options.repeats, CROSSOVER_WORK)
    return {"packed_minimum_work": PACKED_MINIMUM_WORK, "rows": rows}


PARTS = {part.__name__: part for part in (k128, k1000, full, classifier, crossover)}


def _median(side: dict[str, Any], quantity: str = "seconds") -> float:
    return side[quantity]["median"]


def set_up(options: argparse.Namespace) -> dict[str, Any]:
    """What parts must have in common to stand in one report."""
    same = {"clip": options.clip, "vocabulary": options.vocabulary, "contexts": CONTEXTS, "images": BATCH}
    return {**same, "versions": package_versions(), "cpu": processor_name(), "threads": options.threads}


def load_parts(path: str, setting: dict[str, Any]) -> dict[str, Any]:
    """Parts that an output file already holds; UserError when they were measured in another set-up."""
    check_writable(path)
    report = read_json(path) if Path(path).exists() else {"set_up": setting, "parts": {}}
    before = report.get("set_up", {}) if isinstance(report, dict) else {}
    differing = ", ".join(key for key in setting if before.get(key) != setting[key])
    if differing:
        raise UserError(f"{path} holds results of another set-up ({differing}); remove it or choose another --output")
    return report["parts"]


def check_targets(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target of the parts at hand: what was measured, what is wanted, whether it is met."""
    rows = []
    for part, value, meaning, low, high in TARGETS:
        if part in parts:
            measured = parts[part][value]
            wanted = f"at least {low:g}" if high is None else f"at most {high:g}"
            met = (low is None or measured >= low) and (high is None or measured <= high)
            rows.append(
                {"part": part, "value": value, "meaning": meaning, "measured": measured, "wanted": wanted, "met": met}
            )
    return rows


def print_report(report: dict[str, Any]) -> None:
    """The targets, the times and memory behind them as medians with their range, and the rows of the crossover."""
    table = Table("part", "measured", "", "wanted", "met")
    for row in report["targets"]:
        table.add_row(
            row["part"], f"{row['measured']:.3g}", row["meaning"], row["wanted"], "yes" if row["met"] else "no"
        )
    print_table(table)
    for part, found in report["parts"].items():
        for side in (each for each in found if isinstance(found[each], dict)):
            seconds, extra = _range(found[side]["seconds"], 1), _range(found[side]["extra_bytes"], 2**20)
            print(f"{part}, {side}, {found[side]['names']} names: {seconds} s, {extra} MiB of extra memory")
    if "classifier" in report["parts"]:
        print(f"classifier: {report['parts']['classifier']['note']}")
    if "crossover" in report["parts"]:
        part = report["parts"]["crossover"]
        title = f"PACKED_MINIMUM_WORK is {part['packed_minimum_work']:.3g}"
        table = Table("width", "names", "work", "truncated / packed", title=title)
        for row in part["rows"]:
            table.add_row(str(row["width"]), str(row["names"]), f"{row['work']:.3g}", f"{row['time_ratio']:.2f}")
        print_table(table)


def _range(spread: dict[str, Any], unit: float) -> str:
    return "{:.3g} ({:.3g} to {:.3g})".format(*(spread[key] / unit for key in ("median", "min", "max")))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is expected, given {text!r}")
    return int(text)


def main() -> None:
    """Parse, measure part after part, write after each, print."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)} (default: all)")
    parser.add_argument("--output", metavar="FILE", help="JSON for the results; without it they are only printed")
    parser.add_argument("--repeats", type=_positive, default=3, help="measurements of each side (default: 3)")
    parser.add_argument("--threads", type=_positive, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument(
        "--classifier-names", type=_positive, metavar="N", help="time open_clip on N names (default: all)"
    )
    parser.add_argument("--chunk-size", type=_positive, default=256, help="names per pass of part full (default: 256)")
    parser.add_argument("--clip", default="ViT-B-16-quickgelu", help="architecture, or its JSON file")
    parser.add_argument("--vocabulary", default="imagenet21k", help="where the names come from")
    options = parser.parse_args()
    asked = options.parts.split(",")
    for part in asked:
        if part not in PARTS:
            raise UserError(f"unknown part {part!r}; expected some of {', '.join(PARTS)}{nearest(part, PARTS)}")
    setting = set_up(options)
    parts = load_parts(options.output, setting) if options.output else {}
    base = Job(options.clip, options.vocabulary, options.threads)
    for part in asked:
        print(part, file=sys.stderr, flush=True)
        parts[part] = {"command": run_description()["command"], **PARTS[part](base, options)}
        report = {"set_up": setting, "targets": check_targets(parts), "parts": parts}
        if options.output:
            write_json(options.output, report)
    print_report(report)


if __name__ == "__main__":
    run_command(main)
