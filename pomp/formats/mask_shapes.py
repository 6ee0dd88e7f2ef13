"""Masks in the forms that tools read: COCO's run lengths, pixels, polygons.

Polygons run along the edges between pixels, so that filling them gives the mask again, pixel by pixel; holes are joined
to what is around them by a seam without width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_core.errors import UserError

Mask = dict[str, Any]
# Pixels between a simplified polygon and the edge of its mask.
TOLERANCE = 1.0


def mask_of_pixels(pixels: np.ndarray) -> Mask:
    """Compressed run lengths of (H, W) bool."""
    encoded = _run_lengths().encode(np.asfortranarray(pixels, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def pixels_of_mask(mask: Mask) -> np.ndarray:
    """(H, W) bool."""
    decoded: np.ndarray = _run_lengths().decode(mask)
    return decoded.astype(bool)


def mask_area(mask: Mask) -> int:
    """Pixels of a mask."""
    return int(_run_lengths().area(mask))


def box_of_mask(mask: Mask) -> tuple[float, float, float, float]:
    """x, y, width, height; all 0 for an empty mask."""
    x, y, width, height = (float(value) for value in _run_lengths().toBbox(mask))
    return x, y, width, height


def mask_of_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """The union of polygons ``[x, y, x, y, …]`` in pixels, of three points or more each."""
    tools = _run_lengths()
    merged = tools.merge(tools.frPyObjects([list(polygon) for polygon in polygons], height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}


def mask_of_runs(counts: Sequence[int], height: int, width: int) -> Mask:
    """Compressed run lengths of plain ones, by columns, the first of the background; they fill the image."""
    encoded = _run_lengths().frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def polygons_of_mask(mask: Mask) -> list[list[float]]:
    """A polygon ``[x, y, x, y, …]`` for each connected part of a mask, exact to the pixel."""
    return [_flat(_joined(rings)) for rings in _parts_of_mask(mask)]


def one_polygon(mask: Mask, tolerance: float = TOLERANCE) -> list[float]:
    """A mask as one polygon ``[x, y, x, y, …]``, its parts joined by seams without width; empty for an empty mask.

    Args:
        tolerance: pixels by which its edges may be straightened; 0 for exact ones.
    """
    rings = [ring for part in _parts_of_mask(mask) for ring in part]
    if tolerance > 0:
        rings = [_simplified(ring, tolerance) for ring in rings]
    return _flat(_joined(rings)) if rings else []


def _flat(points: np.ndarray) -> list[float]:
    return [float(value) for value in points.ravel()]


def _parts_of_mask(mask: Mask) -> list[list[np.ndarray]]:
    left, top, width, height = (int(value) for value in box_of_mask(mask))
    inside = pixels_of_mask(mask)[top : top + height, left : left + width]  # most of a photo is not the thing
    return [[ring + np.array([left, top]) for ring in rings] for rings in _parts(inside)]


def _parts(pixels: np.ndarray) -> list[list[np.ndarray]]:
    """Rings of corners (n, 2) as x, y: for each part that hangs together by its sides, the outer one and its holes."""
    outer: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    for ring in _rings(pixels):
        top = ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]]
        (outer if pixels[top[1], top[0]] else holes).append(ring)
    parts = [[ring] for ring in outer]
    for hole in holes:
        left, top = hole[np.lexsort((hole[:, 0], hole[:, 1]))[0]]
        around = [number for number, ring in enumerate(outer) if _holds(ring, left + 0.5, top - 0.5)]
        # The innermost: others hold the part that the hole is in.
        parts[min(around, key=lambda number: float(np.prod(np.ptp(outer[number], axis=0))))].append(hole)
    return parts


def _rings(pixels: np.ndarray) -> list[np.ndarray]:
    """Closed lines along the edges of pixels, as their corners (n, 2) in x, y; sides of a pixel join, tips do not.

    In each row of corners the first and the second are the ends of a horizontal edge, the third and the fourth of the
    next, and likewise in each column; following them in turn goes around. Where two pixels touch by their tips there
    are two corners in one place.
    """
    padded = np.pad(pixels, 1).astype(np.int8)
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]  # (H + 1, W + 1) around each corner
    crossing = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    odd = (upper_left + upper_right + lower_left + lower_right) % 2 == 1
    y, x = np.nonzero(odd | crossing)
    double = crossing[y, x]
    falling = upper_left[y, x] == 1  # of a crossing, the pixels to the upper left and the lower right
    times = np.where(double, 2, 1)
    y, x, falling, double = (np.repeat(values, times) for values in (y, x, falling, double))
    second = np.zeros(len(x), dtype=np.int8)
    second[1:] = (x[1:] == x[:-1]) & (y[1:] == y[:-1])  # by rows: the first has its edge to the left, the second right
    upwards = np.where(double & ~falling, 1 - second, second)  # by columns: the first has its edge upwards
    by_row, by_column = np.lexsort((second, x, y)), np.lexsort((upwards, y, x))
    across, along = _partners(by_row), _partners(by_column)
    rings, seen = [], np.zeros(len(x), dtype=bool)
    for start in range(len(x)):
        if seen[start]:
            continue
        corners, corner = [], start
        while not seen[corner]:
            neighbour = across[corner]
            seen[corner] = seen[neighbour] = True
            corners += [corner, neighbour]
            corner = along[neighbour]
        rings.append(np.stack([x[corners], y[corners]], axis=1))
    return rings


def _partners(order: np.ndarray) -> np.ndarray:
    partners = np.empty_like(order)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners


def _holds(ring: np.ndarray, x: float, y: float) -> bool:
    """Whether a point that is on no edge lies within a ring: an odd number of upright edges is to its left."""
    after = np.roll(ring, -1, axis=0)
    crossed = (ring[:, 1] > y) != (after[:, 1] > y)
    return bool(np.count_nonzero(crossed & (ring[:, 0] < x)) % 2)


def _joined(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One line through all rings: from the first to each other and back, between the points that are nearest."""
    line = np.asarray(rings[0], dtype=np.float64)
    for ring in sorted(rings[1:], key=len, reverse=True):
        here, there = _nearest_points(line, np.asarray(ring, dtype=np.float64))
        turned = np.roll(ring, -there, axis=0)
        line = np.concatenate([line[: here + 1], turned, turned[:1], line[here:]])
    return line


def _nearest_points(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    best = (float("inf"), 0, 0)
    for number, point in enumerate(other):
        distances = ((one - point) ** 2).sum(axis=1)
        nearest = int(distances.argmin())
        best = min(best, (float(distances[nearest]), nearest, number))
    return best[1], best[2]


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Fewer points of a closed line, from which no point is further than ``tolerance`` (Douglas and Peucker, 1973)."""
    if len(ring) <= 8:
        return ring
    points = np.concatenate([ring, ring[:1]]).astype(np.float64)
    kept = np.zeros(len(points), dtype=bool)
    far = int(((points - points[0]) ** 2).sum(axis=1).argmax())
    kept[[0, far, -1]] = True
    spans = [(0, far), (far, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        inner, base = points[first + 1 : last] - points[first], points[last] - points[first]
        length = float(np.hypot(*base))
        away = np.abs(base[0] * inner[:, 1] - base[1] * inner[:, 0]) / length if length else np.hypot(*inner.T)
        furthest = int(away.argmax())
        if away[furthest] > tolerance:
            middle = first + 1 + furthest
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    fewer = ring[kept[:-1]]
    return fewer if len(fewer) >= 3 else ring


def _run_lengths() -> Any:
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise UserError("masks need pycocotools; run: pip install 'pycocotools>=2.0.8'") from error
    return mask
