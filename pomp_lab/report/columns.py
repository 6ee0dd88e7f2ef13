"""Columns: one data set, one metric, one protocol. Numbers of two protocols never share one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pomp_lab.report.protocol_text import differences, protocol_key

# Not in percent; shown with three digits, and the lowest is the best.
LOWER_IS_BETTER = frozenset({"alignment", "uniformity", "loss"})
_LABELS = {"top1": "top-1", "top5": "top-5", "per_class": "top-1, mean of classes", "top1_gain": "top-1 gain"}
_LABELS |= {
    "right_or_above": "right or above",
    "hierarchical_f1": "hierarchical F",
    "lca_height": "height of the mistake",
}
_ORDER = ["top1", "top5", "per_class", "AP", "APr", "APc", "APf", "AP50", "AP75", "APs", "APm", "APl"]
_ORDER += ["hIoU", "mIoU-seen", "mIoU-unseen", "mIoU", "fwIoU", "mACC", "pACC"]


@dataclass(frozen=True)
class Column:
    """One data set, one metric, one protocol; two columns are equal when these are.

    Attributes:
        protocol_key: see :func:`pomp_lab.report.protocol_text.protocol_key`.
        difference: how the protocol differs from those of the other columns of this data set; empty for one column.
    """

    dataset: str
    metric: str
    protocol_key: str
    protocol: dict[str, Any] = field(compare=False, repr=False)
    difference: str = field(default="", compare=False)

    @property
    def place(self) -> tuple[str, str]:
        """Data set and protocol, which all metrics of one evaluation share."""
        return self.dataset, self.protocol_key

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


def columns_of(dataset: str, protocol: dict[str, Any], numbers: dict[str, float]) -> dict[Column, float]:
    """Column → number, from metric → number of one data set under one protocol."""
    key = protocol_key(protocol)
    return {Column(dataset, metric, key, protocol): number for metric, number in numbers.items()}


def ordered_columns(columns: Iterable[Column]) -> list[Column]:
    """Each column once, by data set (as they first occur) and metric, with the differences of protocols."""
    unique = list(dict.fromkeys(columns))
    place = {dataset: number for number, dataset in enumerate(dict.fromkeys(column.dataset for column in unique))}
    return with_differences(sorted(unique, key=lambda column: (place[column.dataset], column.order)))


def with_differences(columns: Sequence[Column]) -> list[Column]:
    """The columns, each with how its protocol differs from those of the others of the same data set."""
    protocols: dict[str, dict[str, dict[str, Any]]] = {}
    for column in columns:
        protocols.setdefault(column.dataset, {})[column.protocol_key] = column.protocol
    texts = {
        (dataset, key): text
        for dataset, by_key in protocols.items()
        for key, text in zip(by_key, differences(list(by_key.values())), strict=True)
    }
    return [dataclasses.replace(column, difference=texts[column.place]) for column in columns]
