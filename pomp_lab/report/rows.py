"""Rows and columns: runs that differ only in the seed share a row, numbers of two protocols never share a column."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pomp_lab.report.protocol_text import differences, protocol_key
from pomp_lab.report.results import Run, Scores
from pomp_lab.report.run_details import LEARNED_AS
from pomp_lab.runs import mean_and_spread

# Appended to the name of a row whose checkpoint was chosen on the reported images.
CHOSEN = "†"
# Not in percent; shown with three digits, and the lowest is the best.
LOWER_IS_BETTER = frozenset({"alignment", "uniformity", "loss"})
# Other names of numbers that are already present.
ALIASES = {"mIoU-base": "mIoU-seen", "mIoU-unbase": "mIoU-unseen", "hIoU-base": "hIoU"}
_LABELS = {"top1": "top-1", "top5": "top-5", "per_class": "top-1, mean of classes", "top1_gain": "top-1 gain"}
_ORDER = ["top1", "top5", "per_class", "AP", "APr", "APc", "APf", "AP50", "AP75", "APs", "APm", "APl"]
_ORDER += ["hIoU", "mIoU-seen", "mIoU-unseen", "mIoU", "fwIoU", "mACC", "pACC"]


@dataclass(frozen=True, eq=False)
class Column:
    """One data set, one metric, one protocol.

    Attributes:
        difference: how the protocol differs from those of the other columns of this data set; empty for one column.
    """

    dataset: str
    metric: str
    protocol: dict[str, Any]
    difference: str = ""

    @cached_property
    def protocol_key(self) -> str:
        """A text that is the same for columns of one protocol."""
        return protocol_key(self.protocol)

    @property
    def task(self) -> str:
        """``classification``, ``detection`` or ``segmentation``; ``training`` for ``train/loss`` and its like."""
        if self.dataset in ("train", "validation") and self.metric in ("loss", "accuracy", "C"):
            return "training"
        if self.metric.startswith(("box_", "mask_")):
            return "detection"
        return "segmentation" if re.match(r"(h|m|fw)IoU|mACC|pA[cC]{2}", self.metric) else "classification"

    @property
    def label(self) -> str:
        """The metric as readers know it."""
        return _LABELS.get(self.metric, self.metric.replace("_", " "))

    @property
    def order(self) -> tuple[bool, int, str]:
        """Boxes before masks, then the field's usual order, then the alphabet."""
        bare = self.metric.removeprefix("box_").removeprefix("mask_")
        return self.metric.startswith("mask_"), _ORDER.index(bare) if bare in _ORDER else len(_ORDER), self.metric

    def scores(self, run: Run) -> Scores | None:
        """The run's numbers on this data set under this protocol."""
        key = (self.dataset, self.protocol_key)
        return next((scores for scores in run.scores if scores.key == key), None)


@dataclass(frozen=True, eq=False)
class Row:
    """Runs of one label and the same settings.

    Attributes:
        number: in the report, from 1; plots label the row with it.
        settings: those of the runs, without the seed.
    """

    number: int
    label: str
    runs: tuple[Run, ...]
    settings: dict[str, Any]

    @property
    def hand(self) -> bool:
        """Whether the prompt is a hand-written template."""
        return self.runs[0].hand

    @property
    def marked(self) -> str:
        """The label, with :data:`CHOSEN` where a checkpoint was chosen on the reported images."""
        return f"{self.label} {CHOSEN}" if any(run.selected_on_test for run in self.runs) else self.label

    @property
    def seeds(self) -> int:
        """Number of different seeds; 1 for runs without."""
        return len({exact(run.settings.get("seed")) for run in self.runs})


@dataclass(frozen=True)
class Cell:
    """Numbers of a row in a column.

    Attributes:
        mean: over the runs that have a number; NaN when none has.
        spread: half the range of those.
        count: number of those runs.
        undefined: number of runs where the metric is NaN.
    """

    mean: float
    spread: float
    count: int
    undefined: int

    def text(self, metric: str, seeds: int = 1) -> str:
        """Mean ± half the range, and the number of runs where it is not that of the seeds."""
        text = number_text(self.mean, metric)
        if self.count > 1:
            text += f" ± {number_text(self.spread, metric)}"
        if self.undefined and self.count:
            return f"{text} ({self.count} of {self.count + self.undefined} runs defined)"
        return f"{text} (n={self.count})" if self.count and self.count != seeds else text


def number_text(value: float, metric: str, signed: bool = False) -> str:
    """One decimal for percent, three for others; a dash for what is not defined."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if signed else ''}.{3 if metric in LOWER_IS_BETTER else 1}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def cell(row: Row, column: Column) -> Cell | None:
    """The numbers of a row in a column, None when no run of the row has them."""
    members = [scores for run in row.runs if (scores := column.scores(run)) is not None]
    values = [scores.numbers[column.metric] for scores in members if column.metric in scores.numbers]
    finite = [value for value in values if math.isfinite(value)]
    mean, spread = mean_and_spread(finite) if finite else (math.nan, 0.0)
    return Cell(mean, spread, len(finite), len(values) - len(finite)) if values else None


def build_columns(runs: Sequence[Run]) -> list[Column]:
    """All columns, ordered by data set (as they first occur), metric and protocol."""
    columns: dict[tuple[str, str, str], Column] = {}
    for scores in (scores for run in runs for scores in run.scores):
        for metric in scores.numbers:
            if ALIASES.get(metric) not in scores.numbers:
                columns.setdefault((*scores.key, metric), Column(scores.dataset, metric, dict(scores.protocol)))
    datasets = list(dict.fromkeys(column.dataset for column in columns.values()))
    ordered = sorted(columns.values(), key=lambda column: (datasets.index(column.dataset), column.order))
    return with_differences(ordered)


def with_differences(columns: Sequence[Column]) -> list[Column]:
    """The columns, each with how its protocol differs from those of the others of the same data set."""
    texts_by_key: dict[tuple[str, str], str] = {}
    for dataset in {column.dataset for column in columns}:
        protocols = {column.protocol_key: column.protocol for column in columns if column.dataset == dataset}
        texts = differences(list(protocols.values()))
        texts_by_key |= {(dataset, key): text for key, text in zip(protocols, texts, strict=True)}
    return [
        dataclasses.replace(column, difference=texts_by_key[column.dataset, column.protocol_key]) for column in columns
    ]


def group_rows(runs: Sequence[Run]) -> list[Row]:
    """Rows in the order of their first runs; rows of the same label are distinguished by what differs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    members = [part for group in groups.values() for part in _distinct_seeds(group)]
    settings = [without_seed(group[0]) for group in members]
    labels = [", ".join(dict.fromkeys(run.label for run in group)) for group in members]
    rows = []
    for number, (group, stated, label) in enumerate(zip(members, settings, labels, strict=True), 1):
        alike = [other for other, name in zip(settings, labels, strict=True) if name == label]
        if len(alike) > 1:
            texts = distinguishing_settings(alike)
            text = texts[alike.index(stated)]
            difference = text if texts.count(text) == 1 else group[0].name
            label = f"{label} ({difference})" if difference else label
        rows.append(Row(number, label, tuple(group), stated))
    return rows


def distinguishing_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each of several settings, the entries that are not the same in all; long values are left out."""
    keys = sorted({key for group in settings for key in group})
    keys = [key for key in keys if len({exact(group.get(key)) for group in settings}) > 1]
    texts = []
    for group in settings:
        stated = {key: group[key] for key in keys if key in group and len(str(group[key])) <= 24}
        # That the choice was not on the reported images goes without saying.
        texts.append(", ".join(f"{k} {v}" for k, v in stated.items() if (k, v) != ("SELECT_ON_TEST", False)))
    return texts


def without_seed(run: Run) -> dict[str, Any]:
    """Settings without the seed, and without the evaluation's, which columns show."""
    return {key: value for key, value in run.settings.items() if key != "seed" and not key.startswith("EVAL.")}


def exact(value: Any) -> str:
    """A value as text, the same exactly for equal values."""
    return json.dumps(value, sort_keys=True, default=str)


def _identity(run: Run) -> str:
    if run.label != run.name:
        return exact([run.label, without_seed(run)])
    # A metrics.json does not hold everything that decided it, unless the training of the prompt is next to it.
    return exact([without_seed(run)]) if LEARNED_AS in run.settings else exact([run.name])


def _distinct_seeds(group: list[Run]) -> list[list[Run]]:
    """Scored prompts with a repeated seed differ in something else, or are the same prompt twice: one row each."""
    by_name = any(run.label == run.name for run in group)
    seeds = {exact(run.settings.get("seed")) for run in group}
    return [[run] for run in group] if by_name and len(seeds) < len(group) else [group]
