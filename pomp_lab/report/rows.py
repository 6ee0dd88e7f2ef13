"""Rows: runs that differ in the seed alone, with the mean of their numbers in each column."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pomp_lab.report.columns import LOWER_IS_BETTER, Column
from pomp_lab.report.results import Run
from pomp_lab.report.run_details import LEARNED_AS
from pomp_lab.runs import mean_and_spread

# Appended to the name of a row whose checkpoint was chosen on the reported images.
CHOSEN = "†"


@dataclass(frozen=True)
class Mean:
    """Numbers of a row in a column.

    Attributes:
        value: mean of the runs that have a number; NaN when none has.
        spread: half the range of those.
        count: number of those runs.
        undefined: number of runs where the metric is NaN.
    """

    value: float
    spread: float
    count: int
    undefined: int

    def text(self, metric: str, seeds: int = 1) -> str:
        """Mean ± half the range, and the number of runs where it is not that of the seeds."""
        text = number_text(self.value, metric)
        if self.count > 1:
            text += f" ± {number_text(self.spread, metric)}"
        if self.undefined and self.count:
            return f"{text} ({self.count} of {self.count + self.undefined} runs defined)"
        return f"{text} (n={self.count})" if self.count and self.count != seeds else text


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

    @cached_property
    def means(self) -> dict[Column, Mean]:
        """Of each column in which a run has a number."""
        numbers: dict[Column, list[float]] = {}
        for run in self.runs:
            for column, number in run.numbers.items():
                numbers.setdefault(column, []).append(number)
        return {column: _mean(values) for column, values in numbers.items()}

    def defined(self, column: Column) -> Mean | None:
        """The mean in a column, None where no run has a number other than NaN."""
        mean = self.means.get(column)
        return mean if mean is not None and mean.count else None


def _mean(values: list[float]) -> Mean:
    finite = [value for value in values if math.isfinite(value)]
    mean, spread = mean_and_spread(finite) if finite else (math.nan, 0.0)
    return Mean(mean, spread, len(finite), len(values) - len(finite))


def number_text(value: float, metric: str, signed: bool = False) -> str:
    """One decimal for percent, three for others; a dash for what is not defined."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if signed else ''}.{3 if metric in LOWER_IS_BETTER else 1}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def group_rows(runs: Sequence[Run]) -> list[Row]:
    """Rows in the order of their first runs; rows of the same label are distinguished by what differs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    drafts: dict[str, list[Row]] = {}
    for number, group in enumerate([part for whole in groups.values() for part in _distinct_seeds(whole)], 1):
        label = ", ".join(dict.fromkeys(run.label for run in group))
        drafts.setdefault(label, []).append(Row(number, label, tuple(group), without_seed(group[0])))
    return sorted((row for alike in drafts.values() for row in _distinguished(alike)), key=lambda row: row.number)


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


def _distinguished(alike: list[Row]) -> list[Row]:
    """Rows of one label, each with what it has and others have not, or else with the name of its first run."""
    texts = distinguishing_settings([row.settings for row in alike])
    times = Counter(texts)
    rows = []
    for row, text in zip(alike, texts, strict=True):
        difference = text if times[text] == 1 else row.runs[0].name
        rows.append(Row(row.number, f"{row.label} ({difference})" if difference else row.label, row.runs, row.settings))
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
