"""Published numbers, and which of them may stand beside a table: those of the same data set and metric."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from prompt_core.report.columns import Column
from prompt_core.report.tables import Table


@dataclass(frozen=True)
class PublishedColumn:
    """A column of a published table.

    Attributes:
        datasets: names in ``metrics.json`` of the data set, or of an average; empty for costs.
        metric: its name in ``metrics.json``.
        model: the backbone, where the columns of a table have different ones.
        means: places of the columns that it is the mean of.
        harmonic: places of the two columns that it is the harmonic mean of.
    """

    name: str
    datasets: tuple[str, ...] = ()
    metric: str = ""
    model: str = ""
    unit: str = "%"
    means: tuple[int, ...] = ()
    harmonic: tuple[int, ...] = ()

    @property
    def heading(self) -> str:
        """Name and backbone."""
        return f"{self.name}, {self.model}" if self.model else self.name

    def matches(self, column: Column) -> bool:
        """Whether the data set's name and the metric are the same."""
        return column.metric == self.metric and self.is_of(column.dataset)

    def is_of(self, dataset: str) -> bool:
        """Whether a data set is called so in ``metrics.json``."""
        return _bare(dataset) in map(_bare, self.datasets)


@dataclass(frozen=True)
class PublishedTable:
    """A published table.

    Attributes:
        protocol: what its numbers follow, in words.
        metrics: what a run's protocol may call the metric, when it calls it anything; Fixed AP is not AP.
        reference: label of the row that differences are taken to, with the backbone where columns have one.
        rows: name and one number for each column, NaN where none is given.
    """

    name: str
    task: str
    source: str
    protocol: str
    metrics: tuple[str, ...]
    reference: str
    columns: tuple[PublishedColumn, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Beside:
    """Published numbers beside a table.

    Attributes:
        rows: label and one number for each column of the table, NaN where none is published.
        reference: label of the row that differences are taken to.
        gaps: for each row of the table that has a number there: its place, and its mean minus the reference.
    """

    published: PublishedTable
    rows: list[tuple[str, list[float]]]
    reference: str
    gaps: list[tuple[int, list[float]]]


@cache
def load_published() -> tuple[PublishedTable, ...]:
    """The published tables, from ``assets/published.json``."""
    file = resources.files("prompt_core") / "assets" / "published.json"
    tables = []
    for entry in json.loads(file.read_text(encoding="utf-8"))["tables"]:
        columns = tuple(
            PublishedColumn(**{key: _frozen(value) for key, value in each.items()}) for each in entry["columns"]
        )
        rows = tuple(
            (row[0], tuple(math.nan if value is None else float(value) for value in row[1:])) for row in entry["rows"]
        )
        text = {key: entry[key] for key in ("name", "task", "source", "protocol", "reference")}
        tables.append(PublishedTable(**text, metrics=tuple(entry["metrics"]), columns=columns, rows=rows))
    return tuple(tables)


def published_beside(table: Table, tables: Sequence[PublishedTable] | None = None) -> list[Beside]:
    """The published numbers of a table's data sets and metrics, one block for each published table."""
    blocks = []
    for published in load_published() if tables is None else tables:
        models = list(dict.fromkeys(column.model for column in published.columns))
        rows = []
        for name, values in published.rows:
            for model in models:
                cells = [_value(published, values, column, model) for column in table.columns]
                if any(map(math.isfinite, cells)):
                    rows.append((f"{name}, {model}" if model else name, cells))
        if rows:
            reference = published.reference if published.reference in dict(rows) else rows[-1][0]
            blocks.append(Beside(published, rows, reference, _gaps(table, dict(rows)[reference])))
    return blocks


def disagreements(published: PublishedTable) -> list[tuple[str, str, float, float]]:
    """Printed means that the printed numbers do not give: row, column, printed, computed.

    Every number is rounded, so a mean of them is off by up to half a unit of the last digit, and so is the printed one.
    """
    found = []
    for name, values in published.rows:
        for place, column in enumerate(published.columns):
            if column.means:
                parts = [values[each] for each in column.means]
                computed = sum(parts) / len(parts)
                slack = 0.05
            elif column.harmonic:
                first, second = (values[each] for each in column.harmonic)
                computed = 2 * first * second / (first + second)
                # The derivatives are 2b²/(a+b)² and 2a²/(a+b)².
                slack = 0.05 * 2 * (first**2 + second**2) / (first + second) ** 2
            else:
                continue
            if abs(computed - values[place]) > slack + 0.05 + 1e-9:
                found.append((name, column.name, values[place], computed))
    return found


def _value(published: PublishedTable, values: Sequence[float], column: Column, model: str) -> float:
    for place, each in enumerate(published.columns):
        if each.model == model and each.matches(column) and column.protocol.get("metric") in (None, *published.metrics):
            return values[place]
    return math.nan


def _gaps(table: Table, reference: Sequence[float]) -> list[tuple[int, list[float]]]:
    gaps = []
    for place, cells in enumerate(table.cells):
        numbers = [
            found.mean - value if found is not None else math.nan for found, value in zip(cells, reference, strict=True)
        ]
        if any(map(math.isfinite, numbers)):
            gaps.append((place, numbers))
    return gaps


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
