"""The measured loop as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADINGS = ["measure", "before", "after"]
_OF_NONE = {
    "precision": "answers that are right",
    "answered": "photos of the words that get one",
    "refused": "other photos that get none",
    "none_right": "none of these is right",
}


def loop_table(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of what ``tools/benchmark_loop.py`` wrote."""
    seeds = list(document["seeds"].values())
    rows = []
    for name in ("boxes", "photos"):
        for suffix, title in (("", "right word"), ("_per_word", "right word, mean over words")):
            pairs = [[turn[name][f"{side}{suffix}"] for turn in seeds] for side in ("before", "after")]
            rows.append([f"{name}: {title}", *map(spread, pairs)])
    for key, title in _OF_NONE.items():
        pairs = [[turn["none of these"][side][key] for turn in seeds] for side in ("before", "after")]
        rows.append([f"photos, 10 of the words: {title}", *map(spread, pairs)])
    for kind, prompts in document["box_ap"].items():
        for metric in ("AP", "AP50"):
            after = [numbers[metric] for name, numbers in prompts.items() if name != "template"]
            rows.append([f"detector {kind}: box {metric}", f"{prompts['template'][metric]:.1f}", spread(after)])
    return HEADINGS, rows


def spread(values: Sequence[float]) -> str:
    """Mean ± half the range."""
    return f"{sum(values) / len(values):.1f} ± {(max(values) - min(values)) / 2:.1f}"
