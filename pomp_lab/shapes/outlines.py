"""Outlines of the embedded data set's shapes as signed distance fields.

A field is negative inside, zero on the outline and positive outside, in units in which a shape roughly fills the circle
of radius 1; x grows to the right and y upwards. Unions are minima, intersections maxima (constructive solid geometry),
and near the outline the values are distances, which antialiasing and borders need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


def disc(x: np.ndarray, y: np.ndarray, cx: float, cy: float, radius: float) -> np.ndarray:
    """Signed distance to a disc."""
    return np.hypot(x - cx, y - cy) - radius


def box(x: np.ndarray, y: np.ndarray, cx: float, cy: float, half_x: float, half_y: float) -> np.ndarray:
    """Signed distance to an axis-parallel rectangle."""
    dx, dy = np.abs(x - cx) - half_x, np.abs(y - cy) - half_y
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def polygon(x: np.ndarray, y: np.ndarray, vertices: Sequence[tuple[float, float]]) -> np.ndarray:
    """Signed distance to a simple polygon: the nearest edge, with the sign of the even-odd rule."""
    nearest = np.full(x.shape, np.inf, dtype=x.dtype)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(vertices, [*vertices[1:], vertices[0]], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        if ey != 0:
            inside ^= ((y >= ay) != (y >= by)) & ((ex * wy - ey * wx > 0) == (ey > 0))
    return np.where(inside, -1, 1).astype(x.dtype) * np.sqrt(nearest)


def _regular(count: int, radius: float, start: float = 90.0) -> list[tuple[float, float]]:
    angles = np.radians(start + 360.0 * np.arange(count) / count)
    return [(radius * float(np.cos(a)), radius * float(np.sin(a))) for a in angles]


def _star_vertices() -> list[tuple[float, float]]:
    outer, inner = _regular(5, 1.0), _regular(5, 0.42, 126.0)
    return [vertex for pair in zip(outer, inner, strict=True) for vertex in pair]


def _mirrored(right: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Close a half outline, given from top to bottom on the right of the y axis, by its mirror image."""
    return [*right, *((-x, y) for x, y in reversed(right) if x != 0)]


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A square standing on its corner with a disc on each upper side: the lobes' centres are the sides' midpoints.
    side = 0.60
    turned_x, turned_y = (x + y + 0.22) * np.sqrt(0.5), (y + 0.22 - x) * np.sqrt(0.5)
    square = box(turned_x, turned_y, 0, 0, side, side)
    shift = side * np.sqrt(0.5)
    lobes = disc(np.abs(x), y, float(shift), float(shift) - 0.22, side)
    return np.minimum(square, lobes)


def _flower(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    petals = np.full(x.shape, np.inf, dtype=x.dtype)
    for cx, cy in _regular(5, 0.60):
        petals = np.minimum(petals, disc(x, y, cx, cy, 0.37))
    return np.minimum(petals, disc(x, y, 0, 0, 0.36))


def _gear(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    teeth = 8
    step = 2 * np.pi / teeth
    angle = np.arctan2(y, x)
    folded = angle - step * np.round(angle / step)
    radius = np.hypot(x, y)
    tooth = box(radius * np.cos(folded), radius * np.sin(folded), 0.80, 0, 0.20, 0.16)
    body = np.minimum(radius - 0.75, tooth)
    return np.maximum(body, 0.27 - radius)


def _cloud(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    field = box(x, y, 0, -0.36, 0.62, 0.26)
    for cx, cy, radius in ((-0.62, -0.28, 0.34), (0.64, -0.30, 0.32), (-0.24, 0.10, 0.42), (0.30, 0.02, 0.36)):
        field = np.minimum(field, disc(x, y, cx, cy, radius))
    return field


def _crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(disc(x, y, -0.10, 0, 0.95), -disc(x, y, 0.36, 0, 0.74))


def _fish(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # The body is a lens, the intersection of two discs; the tail overlaps its right end.
    body = np.maximum(disc(x, y, -0.16, -0.52, 1.0), disc(x, y, -0.16, 0.52, 1.0))
    tail = polygon(x, y, [(0.30, 0.0), (0.94, 0.48), (0.78, 0.0), (0.94, -0.48)])
    return np.minimum(body, tail)


def _mushroom(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cap = np.maximum(np.hypot(x, (y + 0.05) * 1.05) - 0.95, -(y + 0.05))
    return np.minimum(cap, box(x, y, 0, -0.48, 0.27, 0.46))


def _teardrop(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # The sides are tangents from the tip to the disc: they touch it where radius and tangent are at right angles.
    cy, radius, tip = -0.34, 0.62, 1.0
    rise = radius**2 / (tip - cy)
    half = float(np.sqrt(radius**2 - rise**2))
    cone = polygon(x, y, [(0.0, tip), (half, cy + rise), (0.0, cy), (-half, cy + rise)])
    return np.minimum(disc(x, y, 0, cy, radius), cone)


_TREE = _mirrored([(0, 1.0), (0.46, 0.38), (0.24, 0.38), (0.64, -0.14), (0.36, -0.14), (0.80, -0.68), (0.15, -0.68),
                   (0.15, -1.0)])  # fmt: skip
_HOUSE = _mirrored([(0, 0.98), (0.95, 0.16), (0.70, 0.16), (0.70, -0.82)])
_ARROW = [(1.0, 0.0), (0.22, 0.72), (0.22, 0.30), (-0.95, 0.30), (-0.95, -0.30), (0.22, -0.30), (0.22, -0.72)]
_BOLT = [(0.10, 0.95), (-0.62, -0.12), (-0.08, -0.12), (-0.32, -1.0), (0.62, 0.24), (0.10, 0.24), (0.48, 0.95)]

OUTLINES: dict[str, Field] = {
    "arrow": lambda x, y: polygon(x, y, _ARROW),
    "circle": lambda x, y: disc(x, y, 0, 0, 0.88),
    "cloud": _cloud,
    "crescent": _crescent,
    "cross": lambda x, y: np.minimum(box(x, y, 0, 0, 0.92, 0.29), box(x, y, 0, 0, 0.29, 0.92)),
    "diamond": lambda x, y: polygon(x, y, [(0, 1.0), (0.62, 0), (0, -1.0), (-0.62, 0)]),
    "fish": _fish,
    "flower": _flower,
    "gear": _gear,
    "heart": _heart,
    "hexagon": lambda x, y: polygon(x, y, _regular(6, 0.95, 0.0)),
    "house": lambda x, y: polygon(x, y, _HOUSE),
    "lightning bolt": lambda x, y: polygon(x, y, _BOLT),
    "mushroom": _mushroom,
    "ring": lambda x, y: np.abs(disc(x, y, 0, 0, 0.66)) - 0.27,
    "square": lambda x, y: box(x, y, 0, 0, 0.76, 0.76),
    "star": lambda x, y: polygon(x, y, _star_vertices()),
    "teardrop": _teardrop,
    "tree": lambda x, y: polygon(x, y, _TREE),
    "triangle": lambda x, y: polygon(x, y, [(0, 1.0), (0.90, -0.58), (-0.90, -0.58)]),
}
