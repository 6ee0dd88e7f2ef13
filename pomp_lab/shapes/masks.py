"""Binary masks in the JSON formats of COCO and LVIS: boxes, run lengths and polygons, all exact to the pixel.

Polygons run along pixel edges at integer coordinates. Rasterised by the COCO tools they reproduce the mask bit for bit,
and they, not run lengths, are what LVIS files hold and the LVIS reader of detectron2 expects. No library does this:
contours of OpenCV run through pixel centres, and pycocotools makes no polygons and compresses its run lengths.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def mask_box(mask: np.ndarray) -> list[int]:
    """Box ``[x, y, width, height]`` of the set pixels of a non-empty (H, W) mask, in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def encode_run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed COCO run lengths of an (H, W) mask: column-major, beginning with the count of zeros."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    return {"counts": [0, *counts] if flat[0] else counts, "size": [int(size) for size in mask.shape]}


def mask_polygons(mask: np.ndarray) -> list[list[int]]:
    """Polygons ``[x0, y0, x1, y1, ...]`` along the pixel edges whose union is the (H, W) mask exactly.

    Polygons of COCO have no holes. A part with a hole is therefore cut into two through the hole's first column, and
    again until no hole is left.
    """
    left, top, width, height = mask_box(mask)
    polygons: list[list[int]] = []
    pending = [(mask[top : top + height, left : left + width], left, top)]
    while pending:
        part, x, y = pending.pop()
        loops = _boundary_loops(part)
        holes = [loop for loop in loops if _signed_area(loop) < 0]
        if holes:
            column = int(holes[0][:, 0].min()) + 1
            pending += [(half, x + offset, y) for half, offset in ((part[:, :column], 0), (part[:, column:], column))]
        else:
            polygons += [np.add(loop, (x, y)).ravel().tolist() for loop in loops]
    return sorted(polygons)


def _signed_area(loop: np.ndarray) -> float:
    x, y = loop[:, 0], loop[:, 1]
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _boundary_loops(mask: np.ndarray) -> list[np.ndarray]:
    """Closed walks along the pixel edges with the set pixels on the right hand (y down); holes have negative area."""
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    inside = padded[1:-1, 1:-1]
    # One directed unit edge for each side that a set pixel shares with an unset one: (row, column) and direction.
    sides = (
        (inside & ~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (inside & ~padded[1:-1, 2:], (1, 0), (0, 1)),
        (inside & ~padded[2:, 1:-1], (1, 1), (-1, 0)),
        (inside & ~padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    leaving: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for present, (dx, dy), direction in sides:
        for row, column in zip(*(axis.tolist() for axis in np.nonzero(present)), strict=True):
            leaving.setdefault((column + dx, row + dy), []).append(direction)
    loops = []
    while leaving:
        start = next(iter(leaving))
        point, direction, corners = start, (0, 0), []
        while True:
            choices = leaving[point]
            # Where two pixels touch at a corner only, turning right keeps to the same pixel: parts stay simple.
            right = (-direction[1], direction[0])
            step = right if right in choices else choices[0]
            choices.remove(step)
            if not choices:
                del leaving[point]
            if step != direction:
                corners.append(point)
            direction = step
            point = (point[0] + step[0], point[1] + step[1])
            if point == start and (point not in leaving or (-direction[1], direction[0]) not in leaving[point]):
                break
        loops.append(np.asarray(corners))
    return loops
