"""Rows of tables: runs that differ in their seed alone stand in one row, as mean and half the range."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pomp_lab.comparisons.prompts import mean_and_spread
from pomp_lab.report.columns import Column
from pomp_lab.report.companions import LEARNED_AS
from pomp_lab.report.formats import Run

# Behind the name of what was chosen on the reported images.
CHOSEN = "†"
# Result files may hold a setting twice: under its own name, and under that of the configuration.
SAME = {"K": "LOSS.NUM_CLASSES", "correction": "LOSS.CORRECTION"}


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
    def marked(self) -> str:
        """The label, with :data:`CHOSEN` where a checkpoint was chosen on the reported images."""
        return f"{self.label} {CHOSEN}" if any(run.selected_on_test for run in self.runs) else self.label

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
    members = [part for group in groups.values() for part in _distinct_seeds(group)]
    labels = [_label(group) for group in members]
    settings = [without_seed(group[0].settings) for group in members]
    rows = []
    for number, (group, label) in enumerate(zip(members, labels, strict=True), 1):
        others = [own for own, each in zip(settings, labels, strict=True) if each == label]
        if len(others) > 1:
            label = f"{label} ({_apart(settings[number - 1], others) or group[0].name})"
        rows.append(Row(number, label, tuple(group), settings[number - 1]))
    return rows


def _label(group: Sequence[Run]) -> str:
    """That of the runs; where each is called by its name, the names."""
    names = list(dict.fromkeys(run.label for run in group))
    joined = ", ".join(names)
    return joined if len(names) <= 2 or len(joined) <= 40 else f"{names[0]} … {names[-1]}"


def _distinct_seeds(group: list[Run]) -> list[list[Run]]:
    """Scored prompts of which two have one seed differ in something else, or are one prompt twice: each by itself."""
    by_name = any(run.label == run.name for run in group)
    seeds = {exact(run.settings.get("seed")) for run in group}
    return [[run] for run in group] if by_name and len(seeds) < len(group) else [group]


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
    if run.label != run.name:
        return exact([run.label, without_seed(run.settings)])
    # A metrics.json does not say all that decided it, unless the training of the scored prompt lies beside that.
    return exact([without_seed(run.settings)]) if LEARNED_AS in run.settings else exact([run.name])


def _apart(settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """What a row's settings say that other rows of its label say differently, as far as that tells it apart."""
    keys = sorted({key for other in others for key in other})
    differing = [key for key in keys if len({exact(other.get(key)) for other in others}) > 1]
    telling = [key for key in differing if not _is_noise(key, others)]
    texts = [_words(other, telling) for other in others]
    own = _words(settings, telling)
    return own if texts.count(own) == 1 else _words(settings, differing)


def _is_noise(key: str, others: Sequence[Mapping[str, Any]]) -> bool:
    """The second name of a setting, and what the columns say: where it was scored."""
    twins = [short for short, long in SAME.items() if long == key]
    return key.startswith("EVAL.") or any(short in other for short in twins for other in others)


def _words(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    stated = {key: settings[key] for key in keys if key in settings and len(str(settings[key])) <= 24}
    # That the choice was not on the reported images goes without saying.
    shown = [f"{key} {value}" for key, value in stated.items() if (key, value) != ("SELECT_ON_TEST", False)]
    return ", ".join(shown[:4])
