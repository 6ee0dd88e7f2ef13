"""From corrected photos to images with a word each: whole photos, or crops of boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pomp.formats.labelled import LabelledPhoto
from prompt_core.data.images import ImageSet
from prompt_core.data.readers.coco_crops import Crops, with_margin
from prompt_core.errors import UserError, nearest
from prompt_core.vocabulary import Vocabulary, plain_name

Task = Literal["classify", "detect"]
SMALLEST_SIDE = 8  # pixels; a crop of less is mostly what resizing makes of it


@dataclass(frozen=True, eq=False)
class Examples:
    """Images that a person named.

    Attributes:
        task: ``classify`` for whole photos, ``detect`` for boxes.
        words: the words that are asked for.
        images: n images, with the row of the (first) word of each as label.
        right: (n, C) booleans: every word that a person gave the image.
        photo: (n,) the photo that each image is of; images of one photo are not independent.
        nothing: photos that show none of the words, by a person's word; their labels mean nothing.
        left_out: why other annotations are not among the images: a reason and its number.
    """

    task: Task
    words: Vocabulary
    images: ImageSet
    right: np.ndarray
    photo: np.ndarray
    nothing: ImageSet
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def photos(self) -> int:
        """Number of photos that have images here."""
        return len(np.unique(self.photo))


def examples_of(
    corrected: Sequence[LabelledPhoto],
    folder: Path,
    task: Literal["auto", "classify", "detect"] = "auto",
    words: Vocabulary | None = None,
) -> Examples:
    """The images of corrected photos.

    Args:
        corrected: with the ``path`` of each, see :func:`pomp.formats.formats.read_corrections`.
        folder: what the photos' names are relative to, where they can be.
        task: ``auto`` for boxes where there are any, else whole photos.
        words: what is asked for; None for every word that was given. Images of other words are left out.

    Raises:
        UserError: without a word, or when photos are absent.
    """
    if task == "auto":
        task = "detect" if any(photo.objects for photo in corrected) else "classify"
    words = words or _given_words(corrected, task)
    row = {plain_name(name): place for place, name in enumerate(words.names)}
    named, left_out = _named(corrected, task)
    known = [(one, _rows(one.words, row)) for one in named]
    if other := sum(not rows for _, rows in known):
        left_out["of other words"] = other
    known = [(one, rows) for one, rows in known if rows]
    if not known:
        raise _nothing_given(corrected, words, task)
    nothing = [number for number, photo in enumerate(corrected) if photo.words == () and not photo.objects]
    owner = np.array([one.photo for one, _ in known])
    keys = _keys(corrected, sorted({*owner.tolist(), *nothing}), folder)
    right = np.zeros((len(known), len(words)), dtype=bool)
    for image, (_, rows) in enumerate(known):
        right[image, rows] = True
    names, labels = list(words.names), np.array([rows[0] for _, rows in known])
    source = "corrected photos"
    if task == "detect":
        boxes = with_margin(np.array([one.box for one, _ in known], dtype=np.float64))
        crop_keys = [f"{keys[one.photo]}#{number}" for number, (one, _) in enumerate(known)]
        images: ImageSet = Crops(names, names, labels, crop_keys, source, folder, boxes=boxes)
    else:
        images = ImageSet(names, names, labels, [keys[one.photo] for one, _ in known], source, folder)
    refused = ImageSet(
        names, names, np.zeros(len(nothing), np.int64), [keys[number] for number in nothing], source, folder
    )
    return Examples(task, words, images, right, owner, refused, left_out)


def photos_of(images: ImageSet) -> ImageSet:
    """The whole photo of each image."""
    return images.photos() if isinstance(images, Crops) else images


class _Named(NamedTuple):
    photo: int
    words: tuple[str, ...]
    box: tuple[float, float, float, float] | None


def _named(corrected: Sequence[LabelledPhoto], task: Task) -> tuple[list[_Named], dict[str, int]]:
    """What a person named, and why other annotations are left out."""
    if task == "classify":
        whole = [(number, photo.words) for number, photo in enumerate(corrected) if not photo.scores]
        return [_Named(number, words, None) for number, words in whole if words], {}
    named, left_out = [], Counter[str]()
    for number, photo in enumerate(corrected):
        seen = set()
        for thing in photo.objects:
            if thing.score is not None:
                left_out["a model's own, with a score"] += 1
            elif min(thing.box[2:]) < SMALLEST_SIDE:
                left_out[f"smaller than {SMALLEST_SIDE} pixels"] += 1
            elif thing.box in seen:
                left_out["the same box again"] += 1
            else:
                seen.add(thing.box)
                named.append(_Named(number, (thing.word,), thing.box))
    return named, dict(left_out)


def _rows(given: Sequence[str], row: dict[str, int]) -> list[int]:
    return list(dict.fromkeys(row[plain_name(word)] for word in given if plain_name(word) in row))


def _given_words(corrected: Sequence[LabelledPhoto], task: Task) -> Vocabulary:
    """Every word of the corrections, in alphabetical order; those of one plain name are one."""
    given: dict[str, str] = {}
    for named in _named(corrected, task)[0]:
        for word in named.words:
            given.setdefault(plain_name(word), word)
    return Vocabulary([given[plain] for plain in sorted(given)], source="the corrections")


def _nothing_given(corrected: Sequence[LabelledPhoto], words: Vocabulary, task: Task) -> UserError:
    other = _given_words(corrected, task).names
    if other:
        return UserError(
            f"none of the {len(other)} corrected words, such as {other[0]!r}, is one of the given "
            f"words{nearest(words.names[0], other)}"
        )
    what = "boxes that a person named" if task == "detect" else "photos with words of their own"
    hint = "; --task detect takes boxes" if task == "classify" and any(photo.objects for photo in corrected) else ""
    return UserError(f"the corrections hold no {what}{hint}")


def _keys(corrected: Sequence[LabelledPhoto], numbers: Sequence[int], folder: Path) -> dict[int, str]:
    """The key of each photo: its path below ``folder``, else its path."""
    absent = [corrected[number].name for number in numbers if corrected[number].path is None]
    if absent:
        raise UserError(
            f"{len(absent)} of {len(numbers)} corrected photos were not found, the first is {absent[0]}; give their "
            "folder as --photos"
        )
    keys = {}
    for number in numbers:
        path = corrected[number].path
        assert path is not None
        keys[number] = (path.relative_to(folder) if path.is_relative_to(folder) else path.absolute()).as_posix()
    return keys
