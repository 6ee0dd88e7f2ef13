"""Data of the plots: sweeps of K or the margin, base against novel classes, gains of classes over the hand prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pomp_lab.report.columns import Column
from pomp_lab.report.protocol_text import protocol_key
from pomp_lab.report.rows import Row, distinguishing_settings, exact
from pomp_lab.report.run_details import ClassNumbers
from prompt_core.errors import UserError, nearest


@dataclass(frozen=True, eq=False)
class Sweep:
    """Rows that differ in one setting only, in one column.

    Attributes:
        values: of the setting, in the order of the axis.
        lines: what distinguishes a line from the others → (value, mean, spread) in order.
        baseline: mean of the first baseline that has one, NaN without.
    """

    column: Column
    values: list[str]
    lines: dict[str, list[tuple[str, float, float]]]
    baseline: float


@dataclass(frozen=True, eq=False)
class Pair:
    """Two columns with the same measure of base and of novel classes, with (row, x, y)."""

    base: Column
    novel: Column
    points: list[tuple[Row, float, float]]


@dataclass(frozen=True, eq=False)
class Gain:
    """Gain of each class over the hand prompt, the largest first."""

    row: Row
    baseline: Row
    dataset: str
    metric: str
    classes: list[tuple[str, float]]


def sweeps(rows: Sequence[Row], columns: Sequence[Column], setting: str, baselines: Sequence[Row] = ()) -> list[Sweep]:
    """For each column, the rows that differ only in ``setting`` (``K`` or ``correction``) and the seed."""
    groups: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if setting in row.settings), key=lambda row: _step(row, setting)):
        groups.setdefault(exact(_others(row, setting)), []).append(row)
    members = sorted((group for group in groups.values() if len(group) > 1), key=lambda group: group[0].number)
    labels = distinguishing_settings([_others(group[0], setting) for group in members])
    swept = []
    for column in columns:
        lines: dict[str, list[tuple[str, float, float]]] = {}
        steps = set()
        for label, group in zip(labels, members, strict=True):
            points = [(_step(row, setting), mean) for row in group if (mean := row.defined(column))]
            if len(points) > 1:
                lines[label or "all else the same"] = [(step[-1], mean.value, mean.spread) for step, mean in points]
                steps |= {step for step, _ in points}
        if lines:
            baseline = next((mean.value for row in baselines if (mean := row.defined(column))), math.nan)
            swept.append(Sweep(column, [step[-1] for step in sorted(steps)], lines, baseline))
    return swept


def base_novel_pairs(rows: Sequence[Row], columns: Sequence[Column]) -> list[Pair]:
    """Columns of base (seen, frequent) and of novel (unseen, rare) classes with otherwise equal protocols."""
    known: dict[tuple[str, str] | None, list[Column]] = {}
    for column in columns:
        known.setdefault((column.dataset, column.metric), []).append(column)
    pairs = []
    for base in columns:
        for novel in known.get(_novel_side(base), []):
            if _same_but_for_classes(base, novel):
                means = [(row, row.defined(base), row.defined(novel)) for row in rows]
                points = [(row, x.value, y.value) for row, x, y in means if x and y]
                if len(points) > 1:
                    pairs.append(Pair(base, novel, points))
    return pairs


def class_gains(rows: Sequence[Row], baselines: Sequence[Row]) -> list[Gain]:
    """Classes of each row against those of the first baseline with the same data set and protocol; means over runs."""
    means: dict[tuple[str, str], dict[Row, ClassNumbers]] = {}
    for row in rows:
        for place in dict.fromkeys(place for run in row.runs for place in run.classes):
            means.setdefault(place, {})[row] = _class_means(row, place)
    gains = []
    for (dataset, _), of_rows in means.items():
        for baseline in [row for row in baselines if row in of_rows][:1]:
            for row in (row for row in of_rows if row is not baseline):
                gains += _gains(row, of_rows[row], baseline, of_rows[baseline], dataset)
    return gains


def _gains(row: Row, after: ClassNumbers, baseline: Row, before: ClassNumbers, dataset: str) -> list[Gain]:
    """One for each metric; masks follow their boxes."""
    metrics = {metric for numbers in after.values() for metric in numbers}
    gains = []
    for metric in sorted(metrics - ({"mask_AP"} if "box_AP" in metrics else set())):
        both = [name for name in after if metric in after[name] and metric in before.get(name, {})]
        classes = [(name, after[name][metric] - before[name][metric]) for name in both]
        if classes:
            gains.append(Gain(row, baseline, dataset, metric, sorted(classes, key=lambda gain: -gain[1])))
    return gains


def find_baselines(rows: Sequence[Row], name: str | None) -> list[Row]:
    """Rows to compare with: the one called ``name``, else those of hand prompts, “a photo of a {}.” first.

    Raises:
        UserError: when no row has this name.
    """
    if name is None:
        hand = [row for row in rows if row.hand]
        return sorted(hand, key=lambda row: (not row.label.strip('"').startswith("a photo of a {}"), row.number))
    matches = [row for row in rows if name in (row.label, *(run.name for run in row.runs))]
    if not matches:
        known = {row.label for row in rows} | {run.name for row in rows for run in row.runs}
        raise UserError(f"no row is called {name!r}{nearest(name, known)}")
    return matches


def _class_means(row: Row, place: tuple[str, str]) -> ClassNumbers:
    """Class → metric → mean over the runs of a row, on one data set under one protocol."""
    values: dict[str, dict[str, list[float]]] = {}
    for run in row.runs:
        for name, numbers in run.classes.get(place, {}).items():
            for metric, value in numbers.items():
                values.setdefault(name, {}).setdefault(metric, []).append(value)
    return {name: {metric: sum(v) / len(v) for metric, v in numbers.items()} for name, numbers in values.items()}


# Entries that necessarily differ between base and novel classes.
_OF_THE_CLASSES = {"images", "images_of", "candidates", "candidate_names", "source", "unreadable"}
_PAIRED = {"mIoU-seen": "mIoU-unseen", "box_APf": "box_APr", "mask_APf": "mask_APr"}
_PAIRED |= {f"{task}_AP50-seen": f"{task}_AP50-unseen" for task in ("box", "mask")}


def _novel_side(base: Column) -> tuple[str, str] | None:
    """Data set and metric of a column's counterpart, None for columns that can have none."""
    if base.metric in ("top1", "accuracy") and "base" in base.dataset:
        return base.dataset.replace("base", "novel"), base.metric
    return (base.dataset, _PAIRED[base.metric]) if base.metric in _PAIRED else None


def _same_but_for_classes(base: Column, novel: Column) -> bool:
    if base.dataset == novel.dataset:
        return base.protocol_key == novel.protocol_key
    among = [column.protocol.get("candidate_names") for column in (base, novel)]
    return among[0] == among[1] and _rest(base) == _rest(novel)


def _rest(column: Column) -> str:
    keys = column.protocol.keys() - _OF_THE_CLASSES
    return protocol_key({key: column.protocol[key] for key in keys if not key.endswith("sha256")})


def _others(row: Row, setting: str) -> dict[str, Any]:
    return {key: value for key, value in row.settings.items() if key != setting}


def _step(row: Row, setting: str) -> tuple[int, float, str]:
    """Place and text on the axis: numbers, then words; K = 0 stands for all classes, no correction for margin 0."""
    value = row.settings[setting]
    if value is None or value == "none":
        return 0, 0.0, "none"
    if setting == "K" and value == 0:
        return 1, 0.0, "all"
    try:
        return 0, float(value), f"{float(value):g}"
    except (TypeError, ValueError, OverflowError):
        # log10 before ln, whose margin is larger for the same K.
        return 1, {"log10": 1.0, "ln": 2.0}.get(str(value), 3.0), str(value)
