"""Published numbers: tables, columns, the data set and metric of each, and the averages that they print."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from pomp_lab.report.columns import Column, columns_of
from pomp_lab.report.results import Run
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.files import sha256_of_json


@dataclass(frozen=True, eq=False)
class PublishedColumn:
    """A column of a published table.

    Attributes:
        datasets: names in ``metrics.json`` of the data set, or of an average; empty for costs.
        metric: its name in ``metrics.json``.
        model: the backbone, where the columns of a table have different ones.
        means: indices of the columns that it is the mean of.
        harmonic: indices of the two columns that it is the harmonic mean of.
    """

    name: str
    datasets: Sequence[str] = ()
    metric: str = ""
    model: str = ""
    means: Sequence[int] = ()
    harmonic: Sequence[int] = ()

    @property
    def heading(self) -> str:
        """Name and backbone."""
        return f"{self.name}, {self.model}" if self.model else self.name

    def is_of(self, dataset: str) -> bool:
        """Whether a data set is called so in ``metrics.json``."""
        return bare_name(dataset) in map(bare_name, self.datasets)

    def measures(self, column: Column) -> bool:
        """Whether its data set and metric are those of a column of ours."""
        return self.metric == column.metric and self.is_of(column.dataset)


@dataclass(frozen=True, eq=False)
class PublishedTable:
    """A published table.

    Attributes:
        protocol: the protocol of its numbers, as text.
        metrics: names that a run's protocol may give the metric, where it names one; Fixed AP is not AP.
        reference: name of the row that differences are computed to.
        model: the backbone of OpenAI's CLIP of all columns that name none; empty where it is not known.
        settings: configuration values of a detector or segmenter with the published architecture.
        rows: name and one number for each column, NaN where none is given.
    """

    name: str
    task: str
    source: str
    protocol: str
    metrics: Sequence[str]
    reference: str
    columns: Sequence[PublishedColumn]
    rows: Sequence[tuple[str, Sequence[float]]]
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """Protocol and source, as sentences."""
        return f"{self.protocol}. Source: {self.source}."


@cache
def load_published() -> tuple[PublishedTable, ...]:
    """The published tables, from ``assets/published.json``."""
    file = resources.files("pomp_lab") / "assets" / "published.json"
    tables = []
    for entry in json.loads(file.read_text(encoding="utf-8"))["tables"]:
        columns = [PublishedColumn(**column) for column in entry.pop("columns")]
        rows = [
            (name, [math.nan if value is None else float(value) for value in values])
            for name, *values in entry.pop("rows")
        ]
        tables.append(PublishedTable(**entry, columns=columns, rows=rows))
    return tuple(tables)


def with_averages(run: Run) -> Run:
    """The run, with a number for each published average whose data sets it all has exactly once.

    An average follows the protocols of all its members, so that averages of different protocols share no column.
    """
    ours: dict[tuple[str, str], list[Column]] = {}
    for column in run.numbers:
        ours.setdefault((bare_name(column.dataset), column.metric), []).append(column)
    averages: dict[Column, float] = {}
    for table in load_published():
        for average in table.columns:
            members = [_columns_of(ours, table.columns[place]) for place in average.means]
            if members and all(len(columns) == 1 for columns in members):
                averages |= _average(average, {column: run.numbers[column] for (column,) in members})
    return dataclasses.replace(run, numbers={**run.numbers, **averages}) if averages else run


def _columns_of(ours: Mapping[tuple[str, str], list[Column]], published: PublishedColumn) -> list[Column]:
    names = dict.fromkeys(map(bare_name, published.datasets))
    return [column for name in names for column in ours.get((name, published.metric), [])]


def _average(average: PublishedColumn, members: Mapping[Column, float]) -> dict[Column, float]:
    protocols = {column.dataset: column.protocol for column in members}
    metrics = {protocol.get("metric") for protocol in protocols.values()}
    followed = {column.dataset: column.protocol_key for column in members}
    protocol: dict[str, Any] = {"mean_of": len(members), "protocols_sha256": sha256_of_json(followed)}
    if len(metrics) == 1 and None not in metrics:
        protocol["metric"] = metrics.pop()
    if any(ON_REPORTED in stated.values() for stated in protocols.values()):
        protocol["selection"] = ON_REPORTED
    return columns_of(average.name, protocol, {average.metric: sum(members.values()) / len(members)})


@cache
def bare_name(dataset: str) -> str:
    """A data set's name without case and punctuation: ``caltech-101`` and ``Caltech101`` are one."""
    return re.sub(r"[^a-z0-9]", "", dataset.lower())
