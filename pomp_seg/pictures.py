"""Label maps drawn in colours fixed by class name, with the names in place and a legend next to it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prompt_core.vocabulary import plain_name

PAPER, INK, PLAIN = (255, 255, 255), (34, 34, 34), (235, 235, 235)
OPACITY = 0.6  # of colours over a photo
LEGEND_ROWS = 24
BAND = 64  # rows of a photo that are mixed with colours, or counted, at once


def class_colour(name: str) -> tuple[int, int, int]:
    """RGB in 0..255 of a class name, the same in every vocabulary; case and underscores do not matter.

    Colours come from a hash of the name. Among many classes two may get similar ones, so pictures also name their
    regions.
    """
    digest = hashlib.sha256(plain_name(name).encode()).digest()
    # Hue, lightness and chroma of OKLCH: steps of the same size look alike, which those of HSV do not.
    hue = 2 * np.pi * int.from_bytes(digest[:2], "big") / 65536
    lightness, chroma = (0.50, 0.65, 0.80)[digest[2] % 3], 0.10 + 0.10 * digest[3] / 255
    while True:
        linear = _oklab_to_linear(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
        if linear.min() >= 0 and linear.max() <= 1:
            break
        chroma *= 0.95  # outside the gamut of screens; the nearest greyer colour keeps hue and lightness
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(255 * float(channel)) for channel in encoded)
    return red, green, blue


def colour_labels(
    labels: np.ndarray,
    class_names: Sequence[str],
    photo: np.ndarray | None = None,
    plain: Sequence[bool] = (),
) -> np.ndarray:
    """Colours of a label map, over the photo where it is given, with dark lines between classes.

    Args:
        labels: (H, W) class indices; values outside 0..C-1 have no class.
        class_names: C names.
        photo: (H, W, 3) uint8 in RGB; None for plain colours.
        plain: C flags of classes that are not coloured: they look like pixels without a class, the photo or grey.

    Returns:
        (H, W, 3) uint8.
    """
    count = len(class_names)
    rows = np.where((labels < 0) | (labels >= count), count, labels)
    if any(plain):
        rows = np.where(np.array([*plain, True])[rows], count, rows)
    present = np.unique(rows)
    table = np.full((count + 1, 3), PLAIN, dtype=np.uint8)
    for row in present[present < count]:
        table[row] = class_colour(class_names[row])
    colours = table[rows]  # (H, W, 3)
    if photo is not None:
        for start in range(0, len(rows), BAND):  # mixing makes floats, 16 bytes for each byte of the photo
            band = slice(start, start + BAND)
            mixed = (OPACITY * colours[band] + (1 - OPACITY) * photo[band]).astype(np.uint8)
            colours[band] = np.where((rows[band] == count)[..., None], photo[band], mixed)
    colours[_edges(rows)] = INK
    return colours


def draw_segmentation(
    labels: np.ndarray,
    class_names: Sequence[str],
    photo: np.ndarray | None = None,
    plain: Sequence[bool] = (),
) -> np.ndarray:
    """A label map in colours with names in its regions, and next to it a legend of its classes, most pixels first.

    Args:
        labels, class_names, photo, plain: see :func:`colour_labels`.

    Returns:
        (H', W', 3) uint8; the label map fills the upper left (H, W).
    """
    size = text_size(*labels.shape)
    drawn = draw_labels(labels, class_names, size, photo, plain)
    entries = legend_entries(class_shares(labels, len(class_names)), class_names)
    return side_by_side([drawn, draw_legend(entries, class_names, size, plain)], gap=0)


def draw_labels(
    labels: np.ndarray,
    class_names: Sequence[str],
    size: int,
    photo: np.ndarray | None = None,
    plain: Sequence[bool] = (),
) -> np.ndarray:
    """:func:`colour_labels`, (H, W, 3) uint8, with each class's name where it has the most room.

    Args:
        size: of the letters in pixels; a class without room for their height gets no name.
    """
    from scipy.ndimage import distance_transform_edt

    picture = Image.fromarray(colour_labels(labels, class_names, photo, plain))
    canvas, font = ImageDraw.Draw(picture), text_font(size)
    coarse = -(-max(labels.shape) // 512)  # at full size, finding room would take seconds in a large photo
    small = labels[::coarse, ::coarse]
    for row, _ in class_shares(labels, len(class_names)):
        if plain and plain[row]:
            continue
        # Pixels outside the picture are no room either.
        room = distance_transform_edt(np.pad(small == row, 1))[1:-1, 1:-1] * coarse
        top, left = np.unravel_index(int(room.argmax()), room.shape)
        if 2 * room[top, left] < 1.2 * size:
            continue
        name = class_names[row]
        half = font.getlength(name) / 2 + 2
        x, y = float(np.clip(left * coarse, half, max(half, labels.shape[1] - half))), float(top * coarse)
        box = canvas.textbbox((x, y), name, font=font, anchor="mm")
        canvas.rectangle((box[0] - 2, box[1] - 1, box[2] + 2, box[3] + 1), fill=class_colour(name))
        canvas.text((x, y), name, fill=_readable(name), font=font, anchor="mm")
    return np.asarray(picture)


def class_shares(labels: np.ndarray, num_classes: int) -> list[tuple[int, float]]:
    """The classes of a label map with their shares of all pixels that have a class, most pixels first."""
    counts = np.zeros(num_classes, dtype=np.int64)
    for start in range(0, len(labels), BAND):  # counting makes 64 bits of each label
        band = labels[start : start + BAND]
        counts += np.bincount(band[(band >= 0) & (band < num_classes)], minlength=num_classes)
    order = np.argsort(-counts, kind="stable")
    return [(int(row), float(counts[row] / counts.sum())) for row in order if counts[row]]


def legend_entries(
    shares: Sequence[tuple[int, float]], class_names: Sequence[str], most: int = LEGEND_ROWS
) -> list[tuple[int | None, str]]:
    """Class index and text of each row of a legend; a last row without index sums up those beyond ``most``."""
    entries: list[tuple[int | None, str]] = [
        (row, f"{class_names[row]}  {_percent(share)}") for row, share in shares[:most]
    ]
    if shares[most:]:
        entries.append((None, f"{len(shares) - most} more  {_percent(sum(share for _, share in shares[most:]))}"))
    return entries


def draw_legend(
    entries: Sequence[tuple[int | None, str]], class_names: Sequence[str], size: int, plain: Sequence[bool] = ()
) -> np.ndarray:
    """Colours and texts, one below the other.

    Args:
        entries: class index, or None for a text alone, and text.
        size: of the letters in pixels.
        plain: C flags of classes that have no colour.

    Returns:
        (H, W, 3) uint8.
    """
    font, line = text_font(size), round(1.5 * size)
    width = max((round(font.getlength(text)) for _, text in entries), default=0) + 3 * size
    image = Image.new("RGB", (width, line * len(entries) + size), PAPER)
    canvas = ImageDraw.Draw(image)
    for number, (row, text) in enumerate(entries):
        top = size // 2 + line * number
        if row is not None:
            fill = PLAIN if plain and plain[row] else class_colour(class_names[row])
            canvas.rectangle((size // 2, top, size // 2 + size, top + size), fill=fill, outline=INK)
        canvas.text((2 * size, top + size / 2), text, fill=INK, font=font, anchor="lm")
    return np.asarray(image)


def side_by_side(pictures: Sequence[np.ndarray], gap: int) -> np.ndarray:
    """Pictures (H, W, 3) from left to right on a white background, aligned at the top."""
    height = max(len(picture) for picture in pictures)
    paper = np.full((height, sum(picture.shape[1] + gap for picture in pictures) - gap, 3), 255, dtype=np.uint8)
    left = 0
    for picture in pictures:
        paper[: len(picture), left : left + picture.shape[1]] = picture
        left += picture.shape[1] + gap
    return paper


def text_size(height: int, width: int) -> int:
    """Size of letters in pixels for a picture."""
    return int(np.clip(min(height, width) / 28, 11, 60))


@lru_cache(maxsize=8)
def text_font(size: int) -> Any:
    """DejaVu Sans, which has Latin, Greek and Cyrillic letters; Pillow's own where matplotlib is not installed."""
    try:
        from matplotlib import get_data_path
    except ImportError:
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _oklab_to_linear(lightness: float, a: float, b: float) -> np.ndarray:
    """OKLab (B. Ottosson, 2020) to linear sRGB, (3,); outside 0..1 where a screen has no such colour."""
    to_lms = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear: np.ndarray = to_linear @ (to_lms @ np.array([lightness, a, b])) ** 3
    return linear


def _readable(name: str) -> tuple[int, int, int]:
    """Black or white, whichever contrasts with the colour of a class."""
    red, green, blue = class_colour(name)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def _edges(rows: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose neighbour to the right or below is of another class."""
    edges = np.zeros(rows.shape, dtype=bool)
    edges[:, :-1] |= rows[:, :-1] != rows[:, 1:]
    edges[:-1] |= rows[:-1] != rows[1:]
    return edges


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"
