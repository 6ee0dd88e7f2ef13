"""The parts of the benchmark of the text side, their targets, and their report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from pomp_lab.benchmarks.fused import measure_attention, measure_compiled
from pomp_lab.benchmarks.harness import target
from pomp_lab.benchmarks.text import (
    BATCH,
    CONTEXTS,
    TextWork,
    choose_names,
    different_names,
    measure_crossover,
    measure_sides,
)
from prompt_core.clip import Clip, load_clip
from prompt_core.command_line import print_table
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import package_versions, processor_name
from prompt_core.files import check_writable, read_json
from prompt_core.text.encoder import PACKED_MINIMUM_WORK, PromptedTextEncoder
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

SMALL, LARGE = 128, 1000  # names of k128 and k1000
REFERENCE_CHUNK = 128  # names per pass of 77 tokens
WIDTHS, COUNTS = (32, 64, 96, 128, 256, 512), (3, 10, 30, 100, 300, 1000)
CROSSOVER_WORK = 2e8  # per block; far beyond it packing wins on every tower, and a call takes seconds
# Part, value, what the value says, lower and upper bound.
TARGETS = (
    ("steps", "few_share", "of the speed of a plain matrix product", 0.7, None),
    ("steps", "many_share", "of the speed of a plain matrix product", 0.75, None),
    ("k128", "time_ratio", "times as fast as all 77 tokens", 25.0, None),
    ("k128", "memory_ratio", "times less extra memory", 12.0, None),
    ("k1000", "time_ratio", "times as fast as 77 tokens in chunks", 10.0, None),
    ("full", "peak_gib", "GiB of resident memory at the peak", None, 4.0),
    ("full", "time_per_name_ratio", "times the time per name of 1,000 names", None, 1.25),
    ("classifier", "template_ratio", "times as fast as open_clip, same template", 15.0, None),
    ("classifier", "prompt_ratio", "times as fast as open_clip, with a learned prompt", 15.0, None),
)


@dataclass(frozen=True)
class Options:
    """Options of the parts.

    Attributes:
        repeats: measurements of each side.
        classifier_names: names that open_clip's classifier is timed on; None for all.
        chunk_size: names per pass of part full.
    """

    repeats: int = 3
    classifier_names: int | None = None
    chunk_size: int = 256


def steps(base: TextWork, options: Options) -> dict[str, Any]:
    """Training steps alone, on few names and on more: how close each is to the speed of a plain matrix product."""
    jobs = {"few": replace(base, names=SMALL, warm=True), "many": replace(base, names=LARGE, warm=True)}
    sides = measure_sides(jobs, options.repeats)
    return {f"{side}_share": _median(measured, "product_share") for side, measured in sides.items()} | sides


def k128(base: TextWork, options: Options) -> dict[str, Any]:
    """A training step on few names, against all 77 tokens of each."""
    ours = replace(base, names=SMALL, warm=True)
    sides = measure_sides({"shared_prefix": ours, "full_context": replace(ours, reference=True)}, options.repeats)
    memory = _median(sides["full_context"], "extra_bytes") / _median(sides["shared_prefix"], "extra_bytes")
    return {
        "time_ratio": _median(sides["full_context"]) / _median(sides["shared_prefix"]),
        "memory_ratio": memory,
        **sides,
    }


def k1000(base: TextWork, options: Options) -> dict[str, Any]:
    """The same on more names, against 77 tokens in chunks."""
    ours = replace(base, names=LARGE, warm=True)
    theirs = replace(base, names=LARGE, reference=True, chunk_size=REFERENCE_CHUNK)
    sides = measure_sides({"shared_prefix": ours, "full_context": theirs}, options.repeats)
    return {"time_ratio": _median(sides["full_context"]) / _median(sides["shared_prefix"]), **sides}


def full(base: TextWork, options: Options) -> dict[str, Any]:
    """A step on every name in chunks: memory, and time per name against one pass over some."""
    jobs = {
        "one_pass": replace(base, names=LARGE, warm=True),
        "every_name": replace(base, chunk_size=options.chunk_size),
    }
    sides = measure_sides(jobs, options.repeats)
    one_pass, every_name = (_median(side) / side["names"] for side in sides.values())
    peak = _median(sides["every_name"], "peak_bytes") / 2**30
    return {"peak_gib": peak, "time_per_name_ratio": every_name / one_pass, **sides}


def classifier(base: TextWork, options: Options) -> dict[str, Any]:
    """A classifier file for every name, against open_clip's own."""
    jobs = {"open_clip": replace(base, work="open_clip", names=options.classifier_names)}
    jobs |= {work: replace(base, work=work) for work in ("template", "prompt")}
    sides = measure_sides(jobs, options.repeats)
    names, timed = sides["template"]["names"], sides["open_clip"]["names"]
    theirs = _median(sides["open_clip"]) * names / timed
    note = f"open_clip's time: first {timed} names, scaled by {names} / {timed}" if timed < names else "all names timed"
    ratios = {f"{work}_ratio": theirs / _median(sides[work]) for work in ("template", "prompt")}
    return {**ratios, "open_clip_seconds": theirs, "note": note, **sides}


def crossover(base: TextWork, options: Options) -> dict[str, Any]:
    """Packed against truncated suffixes on small towers."""
    torch.set_num_threads(base.threads)
    vocabulary = Vocabulary.load(base.vocabulary)
    rows = measure_crossover(vocabulary, WIDTHS, COUNTS, 5 * options.repeats, CROSSOVER_WORK)
    return {"packed_minimum_work": PACKED_MINIMUM_WORK, "rows": rows}


def attention(base: TextWork, options: Options) -> dict[str, Any]:
    """Attention of one layer by plain products, as the encoder has it, and by torch's fused kernels."""
    clip, vocabulary = _here(base)
    rows: list[dict[str, Any]] = []
    for count in (SMALL, LARGE):
        names = different_names(vocabulary, choose_names(vocabulary, count, at_random=True))
        ways = measure_attention(PromptedTextEncoder(clip), names, CONTEXTS, 3 * options.repeats)
        rows += [{"names": count, "way": way, **measured} for way, measured in ways.items()]
    return {"rows": rows}


def compiled(base: TextWork, options: Options) -> dict[str, Any]:
    """A training step on few names as it is, and with its blocks compiled by torch."""
    return {"rows": [measure_compiled(*_here(base), SMALL, options.repeats)]}


PARTS: dict[str, Callable[[TextWork, Options], dict[str, Any]]] = {
    part.__name__: part for part in (steps, k128, k1000, full, classifier, crossover, attention, compiled)
}


def _median(side: dict[str, Any], quantity: str = "seconds") -> float:
    return float(side[quantity]["median"])


def set_up(base: TextWork) -> dict[str, Any]:
    """What parts must have in common to be in one report."""
    same = {"clip": base.clip, "vocabulary": base.vocabulary, "contexts": CONTEXTS, "images": BATCH}
    machine = {"cpu": processor_name(), "threads": base.threads}
    if base.device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"--device is {base.device} but no GPU is usable here; use cpu")
        machine |= {"device": torch.cuda.get_device_name(base.device)}
    if base.precision != "float32":
        machine |= {"precision": base.precision}
    return {**same, "versions": package_versions(), **machine}


def load_parts(path: str, setting: dict[str, Any]) -> dict[str, Any]:
    """Parts that an output file already holds; UserError when they were measured with other settings."""
    check_writable(path)
    report = read_json(path) if Path(path).exists() else {"set_up": setting, "parts": {}}
    before = report.get("set_up", {}) if isinstance(report, dict) else {}
    differing = ", ".join(key for key in setting if before.get(key) != setting[key])
    if differing:
        raise UserError(f"{path} holds results with other settings ({differing}); remove it or choose another --output")
    return report["parts"]


def check_targets(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target of the measured parts: value, bound, and whether it is met; parts of older reports lack some."""
    rows = []
    for part, value, meaning, low, high in TARGETS:
        if value in parts.get(part, {}):
            rows.append({"part": part, "value": value, "meaning": meaning, **target(parts[part][value], low, high)})
    return rows


def print_report(report: dict[str, Any]) -> None:
    """The targets, the times and memory behind them as medians with their range, and the rows of the crossover."""
    table = Table("part", "measured", "", "wanted", "met")
    for row in report["targets"]:
        table.add_row(
            row["part"], f"{row['measured']:.3g}", row["meaning"], row["wanted"], "yes" if row["met"] else "no"
        )
    print_table(table)
    for part, values in report["parts"].items():
        for side, value in values.items():
            if isinstance(value, dict):
                seconds, extra = _range(value["seconds"], 1), _range(value["extra_bytes"], 2**20)
                say(f"{part}, {side}, {value['names']} names: {seconds} s, {extra} MiB of extra memory{_shares(value)}")
    if "classifier" in report["parts"]:
        say(f"classifier: {report['parts']['classifier']['note']}")
    if "crossover" in report["parts"]:
        part = report["parts"]["crossover"]
        title = f"PACKED_MINIMUM_WORK is {part['packed_minimum_work']:.3g}"
        table = Table("width", "names", "work", "truncated / packed", title=title)
        for row in part["rows"]:
            table.add_row(str(row["width"]), str(row["names"]), f"{row['work']:.3g}", f"{row['time_ratio']:.2f}")
        print_table(table)
    for row in report["parts"].get("attention", {}).get("rows", ()):
        seconds, times = _range(row["seconds"], 1), f"{row['times']:.2f} times products"
        say(f"attention, {row['way']}, {row['names']} names: {seconds} s, {times}, {row['difference']:.1g} apart")
    for row in report["parts"].get("compiled", {}).get("rows", ()):
        same = "the same result" if row["same_result"] else "ANOTHER RESULT"
        first = f"{row['first_call_seconds']:.3g} s for the first call"
        say(f"compiled, {row['names']} names: {row['time_ratio']:.2f} times the step as it is, {first}, {same}")


def _here(base: TextWork) -> tuple[Clip, Vocabulary]:
    """The CLIP and the names of a measurement in this process."""
    torch.set_num_threads(base.threads)
    return load_clip(base.clip, device=base.device, precision=base.precision), Vocabulary.load(base.vocabulary)


def _shares(side: dict[str, Any]) -> str:
    if "product_share" not in side:
        return ""
    product, copy = (100 * _median(side, share) for share in ("product_share", "copy_share"))
    rates = f"{side['product_rate'] / 1e9:.0f} GFLOP/s and {side['copy_rate'] / 1e9:.0f} GB/s"
    return f"; {product:.0f} % of the speed of a plain product, {copy:.0f} % of a plain copy's ({rates})"


def _range(spread: dict[str, Any], unit: float) -> str:
    return "{:.3g} ({:.3g} to {:.3g})".format(*(spread[key] / unit for key in ("median", "min", "max")))
