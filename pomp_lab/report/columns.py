"""Columns of tables: one for each data set, metric and protocol; numbers of two protocols never meet in one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pomp_lab.report.formats import Part, Run
from pomp_lab.report.protocol import differences, protocol_key

TASKS = ("classification", "detection", "segmentation", "training")
LOWER_IS_BETTER = frozenset({"alignment", "uniformity", "loss"})
# In a unit other than percent, or none; shown with three digits.
FINE = LOWER_IS_BETTER

_SEGMENTATION = ("hIoU", "mIoU-seen", "mIoU-unseen", "mIoU", "fwIoU", "mACC", "pACC")
_ORDER = ("top1", "top5", "per_class", "AP", "APr", "APc", "APf", "AP50", "AP75", "APs", "APm", "APl", *_SEGMENTATION)
# Other names of numbers that are there already.
ALIASES = {"mIoU-base": "mIoU-seen", "mIoU-unbase": "mIoU-unseen", "hIoU-base": "hIoU"}
_LABELS = {"top1": "top-1", "top5": "top-5", "per_class": "top-1, mean of classes", "top1_gain": "top-1 gain"}


@dataclass(frozen=True, eq=False)
class Column:
    """One data set, one metric, one protocol.

    Attributes:
        words: how the protocol differs from those of the other columns of this data set and metric; empty for one.
    """

    dataset: str
    metric: str
    protocol: dict[str, Any]
    words: str = ""

    @cached_property
    def key(self) -> tuple[str, str, str]:
        """What makes it this column."""
        return self.dataset, self.metric, protocol_key(self.protocol)

    @property
    def task(self) -> str:
        """One of :data:`TASKS`."""
        return task_of(self.dataset, self.metric)

    @property
    def label(self) -> str:
        """The metric as readers know it."""
        return _LABELS.get(self.metric, self.metric.replace("_", " "))

    def part(self, run: Run) -> Part | None:
        """What the run says of this data set under this protocol."""
        for part in run.parts:
            if part.key == (self.dataset, self.key[2]):
                return part
        return None


def build_columns(runs: Sequence[Run]) -> list[Column]:
    """All columns: data sets in the order in which they come, of each the metrics, of these the protocols."""
    protocols: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for run in runs:
        for part in run.parts:
            for metric in part.numbers:
                if ALIASES.get(metric) not in part.numbers:
                    found = protocols.setdefault((part.dataset, metric), {})
                    found.setdefault(part.key[1], part.protocol)
    datasets = list(dict.fromkeys(dataset for dataset, _ in protocols))
    words = {dataset: _told_apart(runs, dataset) for dataset in datasets}
    columns = []
    for dataset, metric in sorted(protocols, key=lambda pair: (datasets.index(pair[0]), metric_order(pair[1]))):
        for key, protocol in protocols[dataset, metric].items():
            columns.append(Column(dataset, metric, dict(protocol), words[dataset][key]))
    return columns


def _told_apart(runs: Sequence[Run], dataset: str) -> dict[str, str]:
    """All protocols of a data set in words, the same for each of its metrics."""
    parts = [part for run in runs for part in run.parts if part.dataset == dataset]
    distinct = {part.key[1]: part.protocol for part in parts}
    return dict(zip(distinct, differences(list(distinct.values())), strict=True))


def task_of(dataset: str, metric: str) -> str:
    """What kind of number it is; ``train/loss`` and ``validation/C`` are of training."""
    if dataset in ("train", "validation") and metric in ("loss", "accuracy", "C"):
        return "training"
    if metric.startswith(("box_", "mask_")):
        return "detection"
    return "segmentation" if re.match(r"(h|m|fw)IoU|mACC|pA[cC]{2}", metric) else "classification"


def metric_order(metric: str) -> tuple[bool, int, str]:
    """Boxes before masks, then the field's usual order, then the alphabet."""
    bare = metric.removeprefix("box_").removeprefix("mask_")
    return metric.startswith("mask_"), _ORDER.index(bare) if bare in _ORDER else len(_ORDER), metric
