"""Published numbers: tables, columns, the data set and metric of each, and the averages that they print."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from pomp_lab.report.protocol_text import protocol_key
from pomp_lab.report.results import Run, Scores
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.files import sha256_of_json


@dataclass(frozen=True)
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

    def is_of(self, dataset: str) -> bool:
        """Whether a data set is called so in ``metrics.json``."""
        return _bare(dataset) in map(_bare, self.datasets)


@dataclass(frozen=True)
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
        columns = [{key: _frozen(value) for key, value in column.items()} for column in entry.pop("columns")]
        rows = [(name, tuple(map(_number, values))) for name, *values in entry.pop("rows")]
        entry["metrics"] = tuple(entry["metrics"])
        tables.append(
            PublishedTable(**entry, columns=tuple(PublishedColumn(**column) for column in columns), rows=tuple(rows))
        )
    return tuple(tables)


def with_averages(run: Run) -> Run:
    """The run, with scores for each published average whose data sets it all has exactly once.

    An average follows the protocols of all its members, so that averages of different protocols share no column.
    """
    averages = []
    for table in load_published():
        for column in table.columns:
            members = [_scores(run, table.columns[place]) for place in column.means]
            if members and all(len(scores) == 1 for scores in members):
                averages.append(_average(column, [scores[0] for scores in members]))
    return dataclasses.replace(run, scores=[*run.scores, *averages]) if averages else run


def _scores(run: Run, column: PublishedColumn) -> list[Scores]:
    return [scores for scores in run.scores if column.metric in scores.numbers and column.is_of(scores.dataset)]


def _average(column: PublishedColumn, members: list[Scores]) -> Scores:
    metrics = {scores.protocol.get("metric") for scores in members}
    followed = {scores.dataset: protocol_key(scores.protocol) for scores in members}
    protocol: dict[str, Any] = {"mean_of": len(members), "protocols_sha256": sha256_of_json(followed)}
    if len(metrics) == 1 and None not in metrics:
        protocol["metric"] = metrics.pop()
    if any(ON_REPORTED in scores.protocol.values() for scores in members):
        protocol["selection"] = ON_REPORTED
    mean = sum(scores.numbers[column.metric] for scores in members) / len(members)
    return Scores(column.name, protocol, {column.metric: mean})


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
