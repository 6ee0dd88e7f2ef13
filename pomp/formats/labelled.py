"""A photo with its words, as every format reads and writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# What tools without a place for "no word" get as a word of the whole photo.
NONE_OF_THESE = "none of these"
# What a person reads where no word has enough and "none of these" has not, either: several words share the photo.
UNSURE = "unsure"


@dataclass(frozen=True)
class LabelledObject:
    """A thing in a photo.

    Attributes:
        word: its name.
        box: x, y of the upper left corner, width and height, in pixels of the upright photo.
        score: how sure a model is, 0 to 1; None for what a person says.
        mask: COCO's compressed run lengths, ``{"size": [H, W], "counts": text}``; None without a mask.
    """

    word: str
    box: tuple[float, float, float, float]
    score: float | None = None
    mask: dict[str, Any] | None = None


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo and what is known of it.

    Attributes:
        name: as in all results, relative, with ``/``.
        width, height: in pixels, upright; 0 where a table of words does not tell them.
        objects: things in it.
        words: of the whole photo, the best first; an empty tuple says "none of these", None that nobody said, or that a
            model is unsure.
        scores: own share of each of ``words``, where a model gave them.
        path: the file, where it is known.
        none_share: own share of "none of these", where a model gave it.
        pixels: reads what no file of its own holds, such as a frame of a video: (H, W, 3) uint8 in RGB.
        by_model: a model said that there is nothing; what has scores is a model's without it.
    """

    name: str
    width: int
    height: int
    objects: tuple[LabelledObject, ...] = ()
    words: tuple[str, ...] | None = None
    scores: tuple[float, ...] = ()
    path: Path | None = field(default=None, compare=False)
    none_share: float | None = None
    pixels: Callable[[], np.ndarray] | None = field(default=None, compare=False, repr=False)
    by_model: bool = field(default=False, compare=False)

    @property
    def predicted(self) -> bool:
        """Whether any of it was said by a model, and not by a person."""
        of_photo = self.by_model or bool(self.scores) or self.none_share is not None
        return of_photo or any(item.score is not None for item in self.objects)


def answer_of(word: str | None, none_share: float) -> str | None:
    """The word, :data:`NONE_OF_THESE`, or None where a model is :data:`UNSURE`.

    Args:
        word: whose own share is enough, or None.
        none_share: of "none of these"; all words together have the rest.
    """
    return word if word is not None else NONE_OF_THESE if none_share >= 0.5 else None


# A function that gives the photos again and again, from the beginning, so that none has to stay in memory.
Photos = Callable[[], Iterator[LabelledPhoto]]


@dataclass(frozen=True)
class Corrections:
    """What a file or a folder of another tool says.

    Attributes:
        kind: name of the format.
        photos: in its order.
        words: all that it knows, in its order, also those that no photo has.
        notes: what was in it and could not be used, a line each.
    """

    kind: str
    photos: tuple[LabelledPhoto, ...]
    words: tuple[str, ...]
    notes: tuple[str, ...] = ()
