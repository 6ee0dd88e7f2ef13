"""What the gallery shows of one photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from pomp.formats.labelled import NONE_OF_THESE, UNSURE, LabelledObject, LabelledPhoto
from pomp.formats.mask_shapes import box_of_mask, mask_area, pixels_of_mask
from pomp.showing.overlay import OPACITY, Ink, labels, marks
from prompt_core.data.open_photo import read_photo
from prompt_core.errors import UserError
from prompt_core.files import atomic_path

NOTHING = "nothing found"
LONGEST = 720  # pixels of a thumbnail, sharp in a card and good enough for a closer look
_QUALITY = 82
_GREY = 160  # of a photo that cannot be shown
_CROWD = 5  # things whose words still have room in a card
_CHIPS = 12  # words of a photo that a card names


@dataclass(frozen=True)
class Chip:
    """A word of a photo with its colour, how often it is there, and its best score."""

    word: str
    colour: str
    text: str


@dataclass(frozen=True)
class Card:
    """What is shown of a photo.

    Attributes:
        name: of the photo.
        picture: the thumbnail's file, relative to the page.
        width, height: of the photo in pixels.
        marks: SVG of boxes and words in the photo's pixels.
        chips: its words.
        more: how many words are not among the chips.
        words: all by which it is found.
        verdict: how sure the answer is.
        doubtful: whether a person should look.
        crowded: whether words would cover each other in a small picture.
    """

    name: str
    picture: str
    width: int
    height: int
    marks: str
    chips: tuple[Chip, ...]
    more: int
    words: tuple[str, ...]
    verdict: str
    doubtful: bool
    crowded: bool


def card_of(photo: LabelledPhoto, picture: str, ink: Ink, share: float) -> Card:
    """The card of a photo.

    Args:
        picture: its thumbnail's file, relative to the page.
        share: how much it is in doubt, 0 to 1.
    """
    width, height = photo.width or LONGEST, photo.height or LONGEST
    if ink.boxes:  # masks are in the thumbnail
        drawn = marks([replace(item, mask=None) for item in photo.objects], width, height, ink)
    else:
        drawn = labels(photo.objects, width, height, ink)
    chips = _chips(photo, ink)
    words = tuple(dict.fromkeys([*(item.word for item in photo.objects), *(photo.words or ())]))
    if not words:
        words = (_without_words(photo),)
    return Card(
        photo.name,
        picture,
        width,
        height,
        drawn,
        chips[:_CHIPS],
        max(0, len(chips) - _CHIPS),
        words,
        _verdict(photo),
        share >= 0.5,
        len(photo.objects) > _CROWD,
    )


def _chips(photo: LabelledPhoto, ink: Ink) -> tuple[Chip, ...]:
    if photo.words is not None and not photo.objects:
        shares = [*photo.scores, *(None for _ in photo.words)][: len(photo.words)]
        pairs = list(zip(photo.words, shares, strict=True))
        return tuple(Chip(word, ink.colours(word)[0], "" if share is None else f"{share:.2f}") for word, share in pairs)
    best: dict[str, list[float | None]] = {}
    for item in photo.objects:
        best.setdefault(item.word, []).append(item.score)
    chips = []
    for word, scores in best.items():
        count = [f"×{len(scores)}"] if len(scores) > 1 else []
        known = [score for score in scores if score is not None]
        chips.append(Chip(word, ink.colours(word)[0], " · ".join([*count, *([f"{max(known):.2f}"] if known else [])])))
    return tuple(chips)


def _without_words(photo: LabelledPhoto) -> str:
    if photo.words is not None:
        return NONE_OF_THESE
    return NOTHING if photo.none_share is None else UNSURE


def _verdict(photo: LabelledPhoto) -> str:
    if photo.words is not None and not photo.objects:
        if not photo.words:
            return NONE_OF_THESE + ("" if photo.none_share is None else f" {photo.none_share:.2f}")
        return f"own share {photo.scores[0]:.2f}" if photo.scores else "said by a person"
    scores = [item.score for item in photo.objects if item.score is not None]
    if not photo.objects:
        return _without_words(photo)
    if not scores:
        return "said by a person"
    return f"score {scores[0]:.2f}" if len(scores) == 1 else f"lowest score {min(scores):.2f}"


def write_thumbnail(photo: LabelledPhoto, file: Path, ink: Ink) -> None:
    """Write the photo with its masks, small; a grey one where it cannot be read any more."""
    image = Image.fromarray(_with_masks(_small(photo), photo.objects, ink))
    with atomic_path(file) as temporary:
        image.save(temporary, format="JPEG", quality=_QUALITY)


def _small(photo: LabelledPhoto) -> np.ndarray:
    """(h, w, 3) uint8, the longer side at most :data:`LONGEST`."""
    try:
        if photo.pixels is None and photo.path is None:
            raise UserError("no file")
        pixels = photo.pixels() if photo.pixels is not None else read_photo(str(photo.path))
    except UserError:
        width, height = photo.width or LONGEST, photo.height or LONGEST
        scale = min(1.0, LONGEST / max(width, height))
        return np.full((max(1, round(height * scale)), max(1, round(width * scale)), 3), _GREY, dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


def _with_masks(small: np.ndarray, things: Sequence[LabelledObject], ink: Ink) -> np.ndarray:
    """The picture under masks in their words' colours, small ones over large ones."""
    painted = small.copy()
    with_mask = [(item.word, item.mask) for item in things if item.mask is not None]
    for word, mask in sorted(with_mask, key=lambda pair: -mask_area(pair[1])):
        # Rows and columns of the picture where the mask is, and for each the row or column of the mask in its middle.
        (left, top, width, height), pixels = box_of_mask(mask), pixels_of_mask(mask)
        rows, of_rows = _sampled(len(small), len(pixels), top, height)
        columns, of_columns = _sampled(small.shape[1], pixels.shape[1], left, width)
        part = painted[rows, columns]
        part[pixels[of_rows][:, of_columns]] = tuple(bytes.fromhex(ink.colours(word)[0][1:]))
    if not with_mask:
        return painted
    weight = round(256 * OPACITY)
    mixed = weight * painted.astype(np.uint16) + (256 - weight) * small.astype(np.uint16)
    return (mixed >> 8).astype(np.uint8)


def _sampled(small: int, large: int, start: float, length: float) -> tuple[slice, np.ndarray]:
    """Of ``small`` places over ``large`` ones, those from ``start`` on for ``length``, and what each is over."""
    first, last = int(start * small / large), min(small, math.ceil((start + length) * small / large))
    return slice(first, last), (2 * np.arange(first, last) + 1) * large // (2 * small)
