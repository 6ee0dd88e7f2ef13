"""Published numbers: tables, columns, and which data set and metric each is of."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from pomp_lab.report.columns import Column
from prompt_core.metrics import harmonic_mean


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
        reference: name of the row that differences are taken to.
        model: the backbone of OpenAI's CLIP of all columns that name none; empty where it is not known.
        settings: what the configuration of a detector or segmenter says of the published architecture.
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
    model: str = ""
    settings: dict[str, Any] = field(default_factory=dict, hash=False)


@cache
def load_published() -> tuple[PublishedTable, ...]:
    """The published tables, from ``assets/published.json``."""
    file = resources.files("pomp_lab") / "assets" / "published.json"
    tables = []
    for entry in json.loads(file.read_text(encoding="utf-8"))["tables"]:
        columns = tuple(
            PublishedColumn(**{key: _frozen(value) for key, value in each.items()}) for each in entry["columns"]
        )
        rows = tuple(
            (row[0], tuple(math.nan if value is None else float(value) for value in row[1:])) for row in entry["rows"]
        )
        text = {key: entry[key] for key in ("name", "task", "source", "protocol", "reference")}
        text |= {key: entry[key] for key in ("model", "settings") if key in entry}
        tables.append(PublishedTable(**text, metrics=tuple(entry["metrics"]), columns=columns, rows=rows))
    return tuple(tables)


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
                computed = harmonic_mean(first, second)
                # The derivatives are 2b²/(a+b)² and 2a²/(a+b)².
                slack = 0.05 * 2 * (first**2 + second**2) / (first + second) ** 2
            else:
                continue
            if abs(computed - values[place]) > slack + 0.05 + 1e-9:
                found.append((name, column.name, values[place], computed))
    return found


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
