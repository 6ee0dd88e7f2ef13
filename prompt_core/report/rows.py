"""Rows of tables: runs that differ in their seed alone stand in one row, as mean and half the range."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompt_core.comparison import mean_and_spread
from prompt_core.report.columns import Column
from prompt_core.report.formats import Run


@dataclass(frozen=True, eq=False)
class Row:
    """Runs of one label and the same settings.

    Attributes:
        number: in the report, from 1; plots call the row by it.
        settings: those of the runs, without the seed.
    """

    number: int
    label: str
    runs: tuple[Run, ...]
    settings: dict[str, Any]

    @property
    def hand(self) -> bool:
        """Whether the class names stood in a hand-written template."""
        return self.runs[0].hand

    @property
    def seeds(self) -> int:
        """Number of different seeds; 1 for runs without."""
        return len({json.dumps(run.settings.get("seed")) for run in self.runs})


@dataclass(frozen=True)
class Cell:
    """Numbers of a row in a column.

    Attributes:
        mean: over the runs that have a number; NaN when none has.
        spread: half the range of those.
        count: of those.
        undefined: runs that have the metric without a number.
    """

    mean: float
    spread: float
    count: int
    undefined: int


def group_rows(runs: Sequence[Run]) -> list[Row]:
    """Rows in the order in which their first runs come; rows of one label are told apart by what differs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    shared: dict[str, list[list[Run]]] = {}
    for members in groups.values():
        shared.setdefault(members[0].label, []).append(members)
    rows = []
    for number, members in enumerate(groups.values(), 1):
        first = members[0]
        label = first.label
        if len(shared[label]) > 1:
            others = [without_seed(each[0].settings) for each in shared[label]]
            label = f"{label} ({_apart(without_seed(first.settings), others) or first.name})"
        rows.append(Row(number, label, tuple(members), without_seed(first.settings)))
    return rows


def cell(row: Row, column: Column) -> Cell | None:
    """The numbers of a row in a column, None when no run of the row has them."""
    parts = [part for run in row.runs if (part := column.part(run)) is not None]
    values = [part.numbers[column.metric] for part in parts if column.metric in part.numbers]
    if not values:
        return None
    finite = [value for value in values if math.isfinite(value)]
    mean, spread = mean_and_spread(finite) if finite else (math.nan, 0.0)
    return Cell(mean, spread, len(finite), len(values) - len(finite))


def without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the seed."""
    return {key: value for key, value in settings.items() if key != "seed"}


def exact(value: Any) -> str:
    """A value as text, the same exactly for equal values."""
    return json.dumps(value, sort_keys=True, default=str)


def _identity(run: Run) -> str:
    # A metrics.json does not say all that decided it: such a run shares its row with no other.
    return exact([run.label, without_seed(run.settings)]) if run.label != run.name else exact([run.name])


def _apart(settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    keys = sorted({key for other in others for key in other} | set(settings))
    differing = [key for key in keys if any(exact(other.get(key)) != exact(settings.get(key)) for other in others)]
    words = [f"{key} {settings.get(key)}" for key in differing if len(str(settings.get(key))) <= 24]
    return ", ".join(words[:4])
