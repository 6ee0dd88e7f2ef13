"""Data of the plots: sweeps of K or the margin, base against novel classes, gains of classes over the hand prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from pomp_lab.report.columns import Column
from pomp_lab.report.protocol_text import protocol_key
from pomp_lab.report.rows import Row, distinguishing_settings, exact
from pomp_lab.report.run_details import ClassNumbers
from prompt_core.errors import UserError, nearest

# Entries of a protocol that necessarily differ between base and novel classes.
_OF_THE_CLASSES = {"images", "images_of", "candidates", "source", "unreadable"}
_NOVEL_METRIC = {"mIoU-seen": "mIoU-unseen", "box_APf": "box_APr", "mask_APf": "mask_APr"}
_NOVEL_METRIC |= {f"{task}_AP50-seen": f"{task}_AP50-unseen" for task in ("box", "mask")}


class Sweep(NamedTuple):
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


class Pair(NamedTuple):
    """Two columns with the same measure of base and of novel classes, with (row, x, y)."""

    base: Column
    novel: Column
    points: list[tuple[Row, float, float]]


class Gain(NamedTuple):
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


def base_novel_pairs(rows: Sequence[Row], columns: Sequence[Column]) -> list[Pair]:
    """Columns of base (seen, frequent) and of novel (unseen, rare) classes with otherwise equal protocols."""
    known: dict[tuple[str, str, str], list[Column]] = {}
    for column in columns:
        known.setdefault((column.dataset, column.metric, _common(column)), []).append(column)
    pairs = []
    for base in columns:
        dataset, metric = base.dataset.replace("base", "novel"), base.metric
        if metric not in ("top1", "accuracy") or dataset == base.dataset:
            dataset, metric = base.dataset, _NOVEL_METRIC.get(metric, "")
        for novel in known.get((dataset, metric, _common(base)), []) if metric else []:
            means = [(row, row.defined(base), row.defined(novel)) for row in rows]
            points = [(row, x.value, y.value) for row, x, y in means if x and y]
            pairs += [Pair(base, novel, points)] if len(points) > 1 else []
    return pairs


def _common(column: Column) -> str:
    """What base and novel classes must have in common."""
    if column.metric not in ("top1", "accuracy"):
        return column.protocol_key
    keys = [key for key in column.protocol if key not in _OF_THE_CLASSES and not key.endswith("sha256")]
    return protocol_key({key: column.protocol[key] for key in keys})


def class_gains(rows: Sequence[Row], baselines: Sequence[Row]) -> list[Gain]:
    """Classes of each row against those of the first baseline with the same data set and protocol; means over runs."""
    means: dict[tuple[str, str], dict[Row, ClassNumbers]] = {}
    for row in rows:
        for place in dict.fromkeys(place for run in row.runs for place in run.classes):
            means.setdefault(place, {})[row] = _class_means(row, place)
    gains = []
    for (dataset, _), of_rows in means.items():
        baseline = next((row for row in baselines if row in of_rows), None)
        if baseline is None:
            continue
        before = of_rows.pop(baseline)
        for row, after in of_rows.items():
            metrics = {metric for numbers in after.values() for metric in numbers}
            # Masks follow their boxes.
            for metric in sorted(metrics - ({"mask_AP"} if "box_AP" in metrics else set())):
                both = [name for name in after if metric in after[name] and metric in before.get(name, {})]
                classes = [(name, after[name][metric] - before[name][metric]) for name in both]
                if classes:
                    gains.append(Gain(row, baseline, dataset, metric, sorted(classes, key=lambda gain: -gain[1])))
    return gains


def _class_means(row: Row, place: tuple[str, str]) -> ClassNumbers:
    """Class → metric → mean over the runs of a row, on one data set under one protocol."""
    values: dict[str, dict[str, list[float]]] = {}
    for run in row.runs:
        for name, numbers in run.classes.get(place, {}).items():
            for metric, value in numbers.items():
                values.setdefault(name, {}).setdefault(metric, []).append(value)
    return {name: {metric: sum(v) / len(v) for metric, v in numbers.items()} for name, numbers in values.items()}


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
