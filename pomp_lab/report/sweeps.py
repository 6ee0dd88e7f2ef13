"""What can be drawn: K or the margin alone varied, base against novel classes, classes against the hand prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pomp_lab.report.columns import Column
from pomp_lab.report.protocol import protocol_key
from pomp_lab.report.rows import SAME, Row, cell, exact
from prompt_core.errors import UserError, nearest


@dataclass(frozen=True)
class Line:
    """One line of a sweep: what its rows share and other lines do not, and (value, mean, spread) in order."""

    label: str
    points: list[tuple[str, float, float]]


@dataclass(frozen=True, eq=False)
class Sweep:
    """Rows that differ in one setting only, in one column.

    Attributes:
        values: of the setting, in the order of the axis.
        baseline: mean of the first baseline that has one, NaN without.
    """

    column: Column
    values: list[str]
    lines: list[Line]
    baseline: float


@dataclass(frozen=True, eq=False)
class Pair:
    """Two columns that are one measure of base and of novel classes, with (row, x, y)."""

    base: Column
    novel: Column
    points: list[tuple[Row, float, float]]


@dataclass(frozen=True, eq=False)
class Gain:
    """Gain of each class over the hand prompt: (class, gain, own value), the largest first."""

    row: Row
    baseline: Row
    dataset: str
    metric: str
    classes: list[tuple[str, float, float]]


def sweeps(rows: Sequence[Row], columns: Sequence[Column], setting: str, baselines: Sequence[Row] = ()) -> list[Sweep]:
    """For each column with rows that differ in ``setting`` (``K`` or ``correction``) and the seed alone."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if setting in row.settings:
            others = {key: value for key, value in row.settings.items() if key not in (setting, SAME.get(setting))}
            groups.setdefault(exact(others), []).append(row)
    groups = {key: members for key, members in groups.items() if len(members) > 1}
    if not groups:
        return []
    labels = _labels([members[0].settings for members in groups.values()], setting)
    swept = []
    for column in columns:
        lines = []
        for label, members in zip(labels, groups.values(), strict=True):
            points = []
            for row in sorted(members, key=lambda row: _place(row.settings[setting], setting)):
                cells = cell(row, column)
                if cells is not None and cells.count:
                    points.append((_value(row.settings[setting], setting), cells.mean, cells.spread))
            if len(points) > 1:
                lines.append(Line(label, points))
        if lines:
            present = {text for line in lines for text, _, _ in line.points}
            values = [row.settings[setting] for members in groups.values() for row in members]
            order = [_value(value, setting) for value in sorted(values, key=lambda value: _place(value, setting))]
            order = list(dict.fromkeys(order))
            known = [found.mean for row in baselines if (found := cell(row, column)) is not None and found.count]
            order = [text for text in order if text in present]
            swept.append(Sweep(column, order, lines, known[0] if known else math.nan))
    return swept


def base_novel_pairs(rows: Sequence[Row], columns: Sequence[Column]) -> list[Pair]:
    """Columns of base (seen, frequent) and of novel (unseen, rare) classes that agree in all else that matters."""
    pairs = []
    for column in columns:
        for other in columns:
            if _is_pair(column, other):
                points = []
                for row in rows:
                    x, y = cell(row, column), cell(row, other)
                    if x and y and x.count and y.count:
                        points.append((row, x.mean, y.mean))
                if len(points) > 1:
                    pairs.append(Pair(column, other, points))
    return pairs


def class_gains(rows: Sequence[Row], columns: Sequence[Column], baselines: Sequence[Row]) -> list[Gain]:
    """Classes of each row against those of the first baseline that has some on the same data set under the same
    protocol; means over runs.
    """
    found = []
    for column in {(column.dataset, column.key[2]): column for column in columns}.values():
        known = [(row, means) for row in baselines if (means := _class_means(row, column))]
        if not known:
            continue
        baseline, before = known[0]
        for row in rows:
            after = _class_means(row, column) if row is not baseline else {}
            measured = {metric for values in after.values() for metric in values}
            # Masks follow their boxes.
            for metric in sorted(measured - ({"mask_AP"} if "box_AP" in measured else set())):
                gains = [
                    (name, values[metric] - before[name][metric], values[metric])
                    for name, values in after.items()
                    if metric in values and metric in before.get(name, {})
                ]
                if gains:
                    found.append(Gain(row, baseline, column.dataset, metric, sorted(gains, key=lambda gain: -gain[1])))
    return found


def find_baselines(rows: Sequence[Row], name: str | None) -> list[Row]:
    """Rows to compare with: the one called ``name``, else those of hand prompts, of which “a photo of a {}.” comes
    first.

    Raises:
        UserError: when no row is called so.
    """
    if name is None:
        hand = [row for row in rows if row.hand]
        return sorted(hand, key=lambda row: (not row.label.strip('"').startswith("a photo of a {}"), row.number))
    found = [row for row in rows if name in (row.label, *(run.name for run in row.runs))]
    if not found:
        known = {row.label for row in rows} | {run.name for row in rows for run in row.runs}
        raise UserError(f"no row is called {name!r}{nearest(name, known)}")
    return found


def _class_means(row: Row, column: Column) -> dict[str, dict[str, float]]:
    gathered: dict[str, dict[str, list[float]]] = {}
    for run in row.runs:
        part = column.part(run)
        for name, values in (part.classes if part is not None else {}).items():
            for metric, value in values.items():
                gathered.setdefault(name, {}).setdefault(metric, []).append(value)
    return {
        name: {metric: sum(values) / len(values) for metric, values in each.items()} for name, each in gathered.items()
    }


# What base and novel classes differ in by nature, so that it need not agree.
_OF_THE_CLASSES = {"images", "images_of", "candidates", "candidate_names", "source", "unreadable"}


def _is_pair(base: Column, novel: Column) -> bool:
    metrics = {"mIoU-seen": "mIoU-unseen", "box_APf": "box_APr", "mask_APf": "mask_APr"}
    metrics |= {f"{task}_AP50-seen": f"{task}_AP50-unseen" for task in ("box", "mask")}
    if base.dataset == novel.dataset:
        return base.metric in metrics and metrics[base.metric] == novel.metric and base.key[2] == novel.key[2]
    if base.dataset.replace("base", "novel") != novel.dataset or base.metric != novel.metric:
        return False
    if base.metric not in ("top1", "accuracy") or _among(base.protocol) != _among(novel.protocol):
        return False
    return protocol_key(_rest(base.protocol)) == protocol_key(_rest(novel.protocol))


def _among(protocol: Mapping[str, Any]) -> Any:
    return protocol.get("candidate_names")


def _rest(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in protocol.items() if k not in _OF_THE_CLASSES and not k.endswith("sha256")}


def _place(value: Any, setting: str) -> tuple[int, float, str]:
    """Order on the axis: numbers, then words; K = 0 stands for all classes, no correction for a margin of 0."""
    if value is None or value == "none":
        return 0, 0.0, ""
    if setting == "K" and value == 0:
        return 1, 0.0, ""
    number = _number(value)
    if number is not None:
        return 0, number, ""
    # log10 before ln, which is larger: the margin of one K grows.
    return 1, float({"log10": 1, "ln": 2}.get(str(value), 3)), str(value)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _value(value: Any, setting: str) -> str:
    if value is None or value == "none":
        return "none"
    if setting == "K" and value == 0:
        return "all"
    number = None if isinstance(value, int) else _number(value)
    return str(value) if number is None else f"{number:g}"


def _labels(settings: Sequence[Mapping[str, Any]], setting: str) -> list[str]:
    keys = sorted({key for each in settings for key in each} - {setting, *SAME.values()})
    differing = [key for key in keys if len({exact(each.get(key)) for each in settings}) > 1]
    names = {"shots": "images per class"}
    texts = []
    for each in settings:
        words = [
            f"{names.get(key, key)}: {_value(each.get(key), key)}" for key in differing if len(str(each.get(key))) < 40
        ]
        texts.append(", ".join(words) or "all else the same")
    return texts
