"""How far a detector's scores are to be believed: how many of the detections of a score are right."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

EDGES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ABOVE = (0.3, 0.5)  # what tools/predict.py shows, and "more than all other names together"
IOU = 0.5


def matched(
    detections: Iterable[Mapping[str, Any]], truth: Iterable[Mapping[str, Any]], iou: float = IOU
) -> tuple[np.ndarray, np.ndarray, int]:
    """Which detections are right.

    As COCO counts: in an image and class, by falling score, each takes the free box that it overlaps most, if by at
    least ``iou``. What only overlaps a crowd counts neither way.

    Args:
        detections: COCO results with ``bbox`` x, y, width, height.
        truth: COCO annotations.

    Returns:
        scores (n,), whether each is right (n,), and how many boxes there were to find.
    """
    found, boxes = defaultdict(list), defaultdict(list)
    for row in detections:
        found[row["image_id"], row["category_id"]].append(row)
    for row in truth:
        boxes[row["image_id"], row["category_id"]].append(row)
    scores: list[float] = []
    right: list[bool] = []
    for place, rows in found.items():
        given = boxes[place]
        crowds = [bool(row.get("iscrowd")) for row in given]
        free = [not crowd for crowd in crowds]
        rows.sort(key=lambda row: -row["score"])
        overlaps = _overlaps(rows, given, crowds)
        for row, of_row in zip(rows, overlaps, strict=True):
            best = max((number for number, is_free in enumerate(free) if is_free), key=of_row.__getitem__, default=None)
            hit = best is not None and of_row[best] >= iou
            if hit and best is not None:
                free[best] = False
            elif any(crowd and overlap >= iou for crowd, overlap in zip(crowds, of_row, strict=True)):
                continue
            scores.append(float(row["score"]))
            right.append(hit)
    total = sum(not row.get("iscrowd") for rows in boxes.values() for row in rows)
    return np.array(scores), np.array(right, dtype=bool), total


def _overlaps(
    rows: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, Any]], crowds: Sequence[bool]
) -> list[list[float]]:
    """IoU (n, m); of a crowd the part of the detection that is inside it."""
    if not given:
        return [[] for _ in rows]
    mine, other = (_corners([row["bbox"] for row in group]) for group in (rows, given))
    overlap = box_iou(mine, other)  # (n, m)
    area, other_area = ((boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (mine, other))
    inside = overlap / (1 + overlap) * (area[:, None] + other_area) / area[:, None].clamp(min=1e-9)
    table: list[list[float]] = torch.where(torch.tensor(list(crowds)), inside, overlap).tolist()
    return table


def _corners(boxes: Sequence[Sequence[float]]) -> torch.Tensor:
    given = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    return torch.cat((given[:, :2], given[:, :2] + given[:, 2:]), dim=1)


def reliability(
    scores: np.ndarray, right: np.ndarray, total: int, edges: Sequence[float] = EDGES, above: Sequence[float] = ABOVE
) -> dict[str, Any]:
    """Precision by score.

    Args:
        scores: (n,).
        right: (n,).
        total: what there was to find.
        edges: of the bins; a bin takes scores from its lower edge on, the last one also its upper edge.

    Returns:
        ``bins`` with ``from``, ``to``, ``detections``, mean ``score`` and ``precision`` in 0..1 (None where empty); and
        ``above`` with ``threshold``, ``detections``, ``precision`` and ``recall``.
    """
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = (scores >= low) & ((scores < high) | (high == edges[-1]))
        bins.append(
            {
                "from": low,
                "to": high,
                "detections": int(inside.sum()),
                "score": _mean(scores[inside]),
                "precision": _mean(right[inside]),
            }
        )
    over = [
        {
            "threshold": threshold,
            "detections": int((scores > threshold).sum()),
            "precision": _mean(right[scores > threshold]),
            "recall": float(right[scores > threshold].sum()) / max(total, 1),
        }
        for threshold in above
    ]
    return {"bins": bins, "above": over}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
