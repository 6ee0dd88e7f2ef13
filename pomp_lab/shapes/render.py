"""Pictures of the embedded data set: patterned shapes on textured backgrounds, drawn with numpy alone.

Images are (H, W, 3) float32 RGB in 0..1 until they are finished. A shape covers a pixel when the pixel's centre is
inside its outline; colours are blended over one pixel at the edges, masks are not.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pomp_lab.shapes.classes import COLOURS, ShapeClass
from pomp_lab.shapes.outlines import OUTLINES

# Red, green, blue in 0..1: the colour itself, then that of its pattern.
_PAINTS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "black": ((0.05, 0.05, 0.06), (0.97, 0.97, 0.97)),
    "blue": ((0.10, 0.26, 0.90), (0.97, 0.97, 0.97)),
    "brown": ((0.43, 0.24, 0.09), (0.97, 0.97, 0.97)),
    "green": ((0.07, 0.58, 0.15), (0.97, 0.97, 0.97)),
    # Not white for grey and light grey for white, or their patterns could not be distinguished from those of black.
    "grey": ((0.53, 0.53, 0.54), (0.14, 0.14, 0.15)),
    "orange": ((1.00, 0.50, 0.03), (0.97, 0.97, 0.97)),
    "pink": ((1.00, 0.47, 0.73), (0.97, 0.97, 0.97)),
    "purple": ((0.48, 0.13, 0.68), (0.97, 0.97, 0.97)),
    "red": ((0.87, 0.07, 0.09), (0.97, 0.97, 0.97)),
    "turquoise": ((0.10, 0.79, 0.76), (0.97, 0.97, 0.97)),
    "white": ((0.97, 0.97, 0.97), (0.60, 0.60, 0.62)),
    "yellow": ((1.00, 0.87, 0.08), (0.10, 0.09, 0.06)),
}
assert tuple(sorted(_PAINTS)) == COLOURS

# An object stays in a scene only if at least this share of the image and of the object is visible.
MIN_VISIBLE_SHARE_OF_IMAGE = 0.001
MIN_VISIBLE_SHARE_OF_OBJECT = 0.2


@dataclass(frozen=True)
class PlacedShape:
    """A shape in an image: pixels from the top left corner, degrees anticlockwise, and its private random numbers."""

    shape_class: ShapeClass
    centre_x: float
    centre_y: float
    radius: float
    tilt: float
    noise_seed: int


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        objects: the visible objects, the furthest first.
        owner: (S, S) int16, index into ``objects`` of the object at each pixel, -1 for background.
    """

    image: np.ndarray
    objects: list[PlacedShape]
    owner: np.ndarray

    def mask(self, index: int) -> np.ndarray:
        """(S, S) bool, the visible part of object ``index``."""
        return self.owner == index


def _window(shape: PlacedShape, size: int) -> tuple[slice, slice]:
    reach = shape.radius * 1.08 + 1.5
    rows, columns = (
        slice(min(max(0, int(c - reach)), size), max(0, min(size, int(c + reach) + 1)))
        for c in (shape.centre_y, shape.centre_x)
    )
    return rows, columns


def _coordinates(shape: PlacedShape, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres in the shape's own frame: (h, w) float32 x and y, y upwards, radius 1."""
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - shape.centre_x))[None, :]
    y = -(np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - shape.centre_y))[:, None]
    cos, sin = np.float32(np.cos(np.radians(shape.tilt))), np.float32(np.sin(np.radians(shape.tilt)))
    scale = np.float32(1 / shape.radius)
    return (x * cos + y * sin) * scale, (y * cos - x * sin) * scale


def signed_distance(shape: PlacedShape, size: int) -> tuple[np.ndarray, slice, slice]:
    """Distance in pixels to the outline, negative inside, on the part of a square image that the shape can touch.

    Returns:
        distance: (h, w) float32, with the rows and columns of the image that it covers.
    """
    rows, columns = _window(shape, size)
    x, y = _coordinates(shape, rows, columns)
    return OUTLINES[shape.shape_class.shape](x, y) * np.float32(shape.radius), rows, columns


def _wave(value: np.ndarray, period: float) -> np.ndarray:
    """Triangle wave through 0 with slope 1: the signed distance to the nearest multiple of half a period."""
    phase = value / period
    return (np.abs((phase + 0.25) % 1.0 - 0.5) - 0.25) * -period


def _pattern_distance(pattern: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Signed distance to the pattern's second colour, negative where it is shown; None for a pattern without one."""
    if pattern in ("plain", "outlined"):
        return None
    turn = rng.uniform(-0.35, 0.35) + (rng.integers(0, 4) * np.pi / 4 if pattern == "striped" else 0.0)
    shift_x, shift_y = rng.uniform(0, 1, 2)
    u, v = x * np.cos(turn) + y * np.sin(turn) + shift_x, y * np.cos(turn) - x * np.sin(turn) + shift_y
    if pattern == "striped":
        return _wave(u, 0.42) + 0.02
    if pattern == "zigzag":
        return _wave(v + 0.9 * np.abs(_wave(u, 1.0)) * 1.6, 0.48) * 0.8 + 0.015
    if pattern == "checkered":
        first, second = _wave(u, 0.64), _wave(v, 0.64)
        return np.sign(first) * np.sign(second) * np.minimum(np.abs(first), np.abs(second))
    spacing = 0.46
    # Every other row of dots is shifted by half a period, as in a halftone.
    row = np.round(v / (spacing * 0.87))
    u = u + 0.5 * spacing * (row % 2)
    return np.hypot(u - spacing * np.round(u / spacing), v - row * spacing * 0.87) - 0.135


def _coverage(distance: np.ndarray) -> np.ndarray:
    return np.clip(0.5 - distance, 0, 1)[..., None]


def _jittered(colour: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    d_hue, d_saturation, d_value = rng.uniform(-1, 1, 3)
    # Wide enough to be seen, too narrow to turn one colour name into another.
    hue = (hue + 0.012 * d_hue) % 1.0
    saturation = float(np.clip(saturation * (1 + 0.10 * d_saturation), 0, 1))
    value = float(np.clip(value * (1 + 0.06 * d_value), 0, 1))
    return np.asarray(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32)


def paint(image: np.ndarray, shape: PlacedShape) -> None:
    """Draw a shape over ``image`` (S, S, 3), in place."""
    rng = np.random.default_rng(shape.noise_seed)
    kind = shape.shape_class
    first, second = (_jittered(colour, rng) for colour in _PAINTS[kind.colour])
    distance, rows, columns = signed_distance(shape, image.shape[0])
    if not distance.size:
        return
    border = 0.16 * shape.radius if kind.pattern == "outlined" else 0.06 * shape.radius
    if kind.pattern == "outlined":
        fill = np.full(3, 0.2 if kind.colour == "white" else 0.96, dtype=np.float32)
        colour = first + (fill - first) * _coverage(distance + border)
    else:
        colour = np.broadcast_to(first, (*distance.shape, 3))
        pattern = _pattern_distance(kind.pattern, *_coordinates(shape, rows, columns), rng)
        if pattern is not None:
            # A rim of the class's own colour frames the pattern and shows which of its colours is meant.
            shown = np.maximum(pattern.astype(np.float32) * np.float32(shape.radius), distance + border)
            colour = first + (second - first) * _coverage(shown)
    # A thin dark (light, for black) line separates objects of equal colour.
    line = first * 0.55 if kind.colour != "black" else np.full(3, 0.30, dtype=np.float32)
    colour = colour + (line - colour) * _coverage(-distance - max(0.7, 0.02 * shape.radius))
    area = image[rows, columns]
    area += (colour - area) * _coverage(distance)


def _smooth_noise(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size) float32 in 0..1: a random grid of ``cells`` by ``cells``, interpolated linearly."""
    # Not as a matrix product: its last bits depend on the number of threads, and so would the file's bytes.
    grid = rng.random((cells, cells), dtype=np.float32)
    position = np.linspace(0, cells - 1, size, dtype=np.float32)
    lower = np.minimum(position.astype(np.int64), cells - 2)
    share = position - lower.astype(np.float32)
    rows = grid[lower] + (grid[lower + 1] - grid[lower]) * share[:, None]
    return rows[:, lower] + (rows[:, lower + 1] - rows[:, lower]) * share[None, :]


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A (size, size, 3) texture of two muted tones, cloudy, grained or woven."""
    value = rng.uniform(0.30, 0.85)
    tones = []
    for shift in (0.0, rng.choice([-1, 1]) * rng.uniform(0.06, 0.16)):
        tone = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.03, 0.28), float(np.clip(value + shift, 0.15, 0.95)))
        tones.append(np.asarray(tone, dtype=np.float32))
    blend = 0.7 * _smooth_noise(size, 4, rng) + 0.3 * _smooth_noise(size, 13, rng)
    style = rng.integers(0, 3)
    if style:
        along = np.linspace(0, 1, size, dtype=np.float32)
        across = np.sin((along[:, None] + 0.10 * blend) * rng.uniform(60, 110))
        grain = across if style == 1 else across * np.sin((along[None, :] + 0.10 * blend) * rng.uniform(60, 110))
        blend = np.clip(blend + 0.16 * (grain.T if rng.integers(0, 2) else grain), 0, 1)
    return tones[0] + (tones[1] - tones[0]) * blend[..., None]


def _finish(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven light and a little sensor noise; float to uint8."""
    size = image.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    light = 1 + rng.uniform(-0.09, 0.09) * ramp[:, None] + rng.uniform(-0.09, 0.09) * ramp[None, :]
    noise = rng.normal(0, 0.008, (size, size)).astype(np.float32)
    image = image * light[..., None].astype(np.float32) + noise[..., None]
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _contrasting_background(size: int, shown: ShapeClass, rng: np.random.Generator) -> np.ndarray:
    """A background that contrasts with the shape's main colour: the first that differs enough, or the best of six."""
    candidates: list[tuple[float, int, np.ndarray]] = []
    for _ in range(6):
        candidate = background(size, rng)
        middle = candidate.mean(axis=(0, 1))
        contrast = float(np.linalg.norm(middle - np.asarray(_PAINTS[shown.colour][0], dtype=np.float32)))
        if contrast > 0.42:
            return candidate
        candidates.append((contrast, len(candidates), candidate))
    return max(candidates, key=lambda item: item[:2])[2]


def render_classification_image(
    shown: ShapeClass, others: Sequence[ShapeClass], size: int, rng: np.random.Generator
) -> np.ndarray:
    """One main shape in a (size, size, 3) uint8 image, in front of up to two distractors that the frame cuts off.

    Args:
        others: classes that distractors are drawn from; may be empty.
    """
    image = _contrasting_background(size, shown, rng)
    for _ in range(int(rng.choice(3, p=[0.5, 0.3, 0.2])) if others else 0):
        other = others[int(rng.integers(len(others)))]
        radius = rng.uniform(0.12, 0.2) * size
        edge, along = int(rng.integers(4)), rng.uniform(0, size)
        overhang = rng.uniform(-0.2, 0.6) * radius
        near = -overhang if edge % 2 == 0 else size + overhang
        x, y = (near, along) if edge < 2 else (along, near)
        paint(image, PlacedShape(other, x, y, radius, rng.uniform(-30, 30), int(rng.integers(2**32))))
    radius = rng.uniform(0.27, 0.43) * size
    room = max(0.0, size / 2 - 0.95 * radius)
    x, y = size / 2 + rng.uniform(-room, room, 2)
    paint(image, PlacedShape(shown, x, y, radius, rng.uniform(-20, 20), int(rng.integers(2**32))))
    return _finish(image, rng)


def visible_owner(objects: Sequence[PlacedShape], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which object each pixel shows when later objects cover earlier ones.

    Returns:
        owner: (size, size) int16, -1 for background.
        whole_areas: (objects,) int64, pixels that each object would cover in the image with nothing in front of it.
    """
    owner = np.full((size, size), -1, dtype=np.int16)
    whole = np.zeros(len(objects), dtype=np.int64)
    for index, shape in enumerate(objects):
        distance, rows, columns = signed_distance(shape, size)
        inside = distance <= 0
        owner[rows, columns][inside] = index
        whole[index] = inside.sum()
    return owner, whole


def render_scene(
    classes: Sequence[ShapeClass], probabilities: np.ndarray, size: int, rng: np.random.Generator
) -> Scene:
    """Two to eight objects that may hide parts of each other.

    Objects that would be mostly hidden are removed before anything is painted, so that every object in the image has an
    annotation.

    Args:
        classes: N classes to draw from.
        probabilities: (N,) float64, how likely each is; sums to 1.
    """
    count = int(rng.integers(2, 9))
    objects: list[PlacedShape] = []
    for _ in range(count):
        if objects and rng.random() < 0.12:
            kind = objects[int(rng.integers(len(objects)))].shape_class
        else:
            kind = classes[int(rng.choice(len(classes), p=probabilities))]
        radius = size * 0.075 * 3.0 ** rng.random()
        x, y = rng.uniform(0.6 * radius, size - 0.6 * radius, 2)
        objects.append(PlacedShape(kind, x, y, radius, rng.uniform(-20, 20), int(rng.integers(2**32))))
    owner, whole = visible_owner(objects, size)
    shown = np.bincount(owner[owner >= 0], minlength=len(objects))
    enough = np.maximum(MIN_VISIBLE_SHARE_OF_IMAGE * size * size, MIN_VISIBLE_SHARE_OF_OBJECT * whole)
    objects = [shape for shape, seen, least in zip(objects, shown, enough, strict=True) if seen >= least]
    owner, _ = visible_owner(objects, size)
    image = background(size, rng)
    for shape in objects:
        paint(image, shape)
    return Scene(_finish(image, rng), objects, owner)
