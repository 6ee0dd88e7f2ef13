"""A photo with boxes, masks and words over it, as one picture that stays sharp at any width.

Each thing carries its score: what is below a threshold is hidden by the page, without a new picture.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pomp.formats.labelled import LabelledObject
from pomp.formats.mask_shapes import box_of_mask, pixels_of_mask
from prompt_core.visible import visible

# Told apart on photos and by people who do not see all colours (after Okabe and Ito, and Tol's light ones); the second
# is what is read on the first.
COLOURS = (
    ("#e69f00", "#000"),
    ("#56b4e9", "#000"),
    ("#00a878", "#000"),
    ("#f0e442", "#000"),
    ("#d55e00", "#fff"),
    ("#cc79a7", "#000"),
    ("#ffffff", "#000"),
    ("#1f5fbf", "#fff"),
    ("#aadd22", "#000"),
    ("#7b3294", "#fff"),
)
LONGEST = 1280  # pixels of the photo that is shown
MASK_LONGEST = 400
OPACITY = 0.45


@dataclass(frozen=True)
class Ink:
    """How things are drawn.

    Attributes:
        words: the order of the colours.
        boxes: whether boxes are drawn, or masks alone.
    """

    words: Sequence[str]
    boxes: bool = True

    def colours(self, word: str) -> tuple[str, str]:
        """A word's colour, and that of text on it."""
        return COLOURS[self.words.index(word) % len(COLOURS)]


def overlay(pixels: np.ndarray, things: Sequence[LabelledObject], ink: Ink, threshold: float = 0.0) -> str:
    """SVG of a photo with things over it; small things lie over large ones, words over all.

    Args:
        pixels: (H, W, 3) uint8 in RGB.
        things: in its pixels, each with one of ``ink.words``.
        threshold: things that score less are there, and hidden.
    """
    height, width = pixels.shape[:2]
    names = ", ".join(dict.fromkeys(visible(thing.word) for thing in things)) or "nothing found"
    return (
        f'<svg class="overlay" viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(names)}" '
        f'xmlns="http://www.w3.org/2000/svg"><image href="{_photo_address(pixels)}" width="{width}" height="{height}"/>'
        f"{marks(things, width, height, ink, threshold)}</svg>"
    )


def marks(things: Sequence[LabelledObject], width: int, height: int, ink: Ink, threshold: float = 0.0) -> str:
    """The shapes and words of :func:`overlay`, for an SVG whose ``viewBox`` is a photo of this size."""
    unit = max(width, 1.2 * height) / 100
    by_size = sorted(things, key=lambda thing: -thing.box[2] * thing.box[3])
    shapes = "".join(_shape(thing, ink, unit, threshold) for thing in by_size)
    return shapes + labels(by_size, width, height, ink, threshold)


def labels(things: Sequence[LabelledObject], width: int, height: int, ink: Ink, threshold: float = 0.0) -> str:
    """The words of :func:`marks` alone: at boxes, or where ``ink`` has none in their masks."""
    unit = max(width, 1.2 * height) / 100
    return "".join(_label(thing, ink, unit, width, threshold) for thing in things)


def _shape(thing: LabelledObject, ink: Ink, unit: float, threshold: float) -> str:
    colour, _ = ink.colours(thing.word)
    parts = [_mask(thing, colour)] if thing.mask is not None else []
    if ink.boxes:
        x, y, width, height = thing.box
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="none"'
        # A dark line below the coloured one, for photos that have the same colour.
        parts.append(f'<rect {place} stroke="#000" stroke-opacity="0.55" stroke-width="{0.9 * unit:.2f}"/>')
        parts.append(f'<rect {place} stroke="{colour}" stroke-width="{0.5 * unit:.2f}"/>')
    return f"<g {_scored(thing, threshold)}>{''.join(parts)}</g>"


def _label(thing: LabelledObject, ink: Ink, unit: float, width: int, threshold: float) -> str:
    colour, text_colour = ink.colours(thing.word)
    score = "" if thing.score is None else f" {thing.score:.2f}"
    text = visible(thing.word) + score
    size = 2.8 * unit
    x, y = (thing.box[0], thing.box[1]) if ink.boxes else _middle(thing)
    across = 0.56 * size * len(text) + size
    x = min(max(x, 0), max(width - across, 0))
    y = y - 1.25 * size if y > 1.25 * size else y
    # The corner that stays where it is when a narrow page makes the word larger.
    side = ("right" if x + across / 2 > width / 2 else "left") + ("" if y > size else " top")
    return (
        f'<g class="label {side}" {_scored(thing, threshold)} data-word="{html.escape(visible(thing.word))}">'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{across:.1f}" height="{1.25 * size:.1f}" rx="{0.2 * size:.1f}" '
        f'fill="{colour}"/><text x="{x + across / 2:.1f}" y="{y + 0.93 * size:.1f}" text-anchor="middle" '
        f'textLength="{across - 0.8 * size:.1f}" lengthAdjust="spacingAndGlyphs" font-size="{size:.1f}" '
        f'fill="{text_colour}">{html.escape(text)}</text></g>'
    )


def _scored(thing: LabelledObject, threshold: float) -> str:
    score = 1.0 if thing.score is None else thing.score
    return f'data-score="{score:.6f}"' + (" hidden" if score < threshold else "")


def _mask(thing: LabelledObject, colour: str) -> str:
    """A mask as a picture of two colours over its own rectangle."""
    part, (x, y) = _mask_in_its_box(thing)
    if not part.size:
        return ""
    height, width = part.shape
    step = max(1, max(part.shape) // MASK_LONGEST)
    picture = Image.fromarray(part[::step, ::step].astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, *bytes.fromhex(colour[1:])])
    file = io.BytesIO()
    picture.save(file, format="PNG", bits=1, transparency=0, optimize=True)
    return (
        f'<image href="data:image/png;base64,{base64.b64encode(file.getvalue()).decode("ascii")}" x="{x}" y="{y}" '
        f'width="{width}" height="{height}" opacity="{OPACITY}" preserveAspectRatio="none"/>'
    )


def _mask_in_its_box(thing: LabelledObject) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of the mask that holds all of it, (h, w) bool, and the place of its corner."""
    if thing.mask is None:
        return np.zeros((0, 0), dtype=bool), (0, 0)
    x, y, width, height = (round(value) for value in box_of_mask(thing.mask))
    return pixels_of_mask(thing.mask)[y : y + height, x : x + width], (x, y)


def _middle(thing: LabelledObject) -> tuple[float, float]:
    """Where a mask's word stands: at its pixel that is nearest to the mean of all."""
    part, (x, y) = _mask_in_its_box(thing)
    rows, columns = np.nonzero(part)
    if not len(rows):
        return thing.box[0], thing.box[1]
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return x + float(columns[nearest]), y + float(rows[nearest])


def _photo_address(pixels: np.ndarray) -> str:
    photo = Image.fromarray(pixels)
    photo.thumbnail((LONGEST, LONGEST))
    file = io.BytesIO()
    photo.save(file, format="JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
