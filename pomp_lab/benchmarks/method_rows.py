"""The rows of the benchmark of methods: what each measures, and how times of some names are extrapolated to all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from pomp_lab.benchmarks.methods import MethodStep, load_names
from prompt_core.command_line import print_table

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


def make_steps(rows: Sequence[str], base: MethodStep, reference_names: int) -> dict[str, MethodStep]:
    """Steps of some of :data:`ROWS` on one list of names.

    Args:
        base: their model, names, device and threads.
        reference_names: how many names the slowest rows are measured on.
    """
    vocabulary, names = base.vocabulary, base.names
    count = len(load_names(vocabulary, names))
    steps = {}
    for row in rows:
        method, images, settings, reference = ROWS[row]
        scaled = row in SCALED and count > reference_names
        taken = reference_names if scaled else names
        if method == "lasp" and count > LARGE:
            settings, taken = {**settings, **LOCAL}, int(SAMPLED[True])
        settings = {key: SAMPLED[count > LARGE] if value == "K" else value for key, value in settings.items()}
        steps[f"{row}, {count} names"] = replace(
            base, names=taken, method=method, images=images, settings=settings, reference=reference
        )
    return steps


def scale_times(rows: list[dict[str, Any]], count: int) -> None:
    """Add the times of ``count`` names (``scaled_seconds`` and others) to rows that measured only the first names."""
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
