"""What of a file of another tool becomes corrections, and what a person should know about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pomp.formats.labelled import Corrections, LabelledObject, LabelledPhoto
from prompt_core.data.open_photo import upright_size
from prompt_core.errors import UserError
from prompt_core.visible import visible_path

# Pixels by which no side of a box has moved where nobody has moved it: formats round, and count from 0 or 1.
UNMOVED = 2.0


@dataclass(frozen=True)
class Imported:
    """Corrections and what was left out of them.

    Attributes:
        corrections: of known photos, without scores.
        unknown: names of photos whose file was not found.
        uncorrected: photos that only a model has named so far.
        other_words: how often each word was left out that was not asked for.
    """

    corrections: Corrections
    unknown: tuple[str, ...]
    uncorrected: int
    other_words: Counter[str]


def imported(
    found: Corrections, words: Sequence[str] = (), files_needed: bool = False, accept_predictions: bool = False
) -> Imported:
    """The corrections in what was read.

    Args:
        words: those that count, in their order; empty for all.
        files_needed: leave photos out whose file was not found.
        accept_predictions: take what a model said, and nobody corrected, for right.

    Raises:
        UserError: when nothing is left.
    """
    unknown, uncorrected = [], 0
    other: Counter[str] = Counter()
    kept: list[LabelledPhoto] = []
    for photo in found.photos:
        if photo.predicted and not accept_predictions:
            uncorrected += 1
        elif photo.path is None and (files_needed or not photo.width):
            unknown.append(photo.name)
        else:
            kept.append(_said(_sized(photo), set(words), other))
    if not kept:
        raise UserError(_nothing_left(len(found.photos), unknown, uncorrected))
    listed = tuple(words) or found.words
    return Imported(replace(found, photos=tuple(kept), words=listed), tuple(unknown), uncorrected, other)


def _nothing_left(photos: int, unknown: Sequence[str], uncorrected: int) -> str:
    if not photos:
        return "there is no photo in it; export the photos with their labels"
    if uncorrected:
        return (
            f"nobody has corrected one of its {photos} photos: they have a model's scores; correct them, or take them "
            "as they are with --accept-predictions"
        )
    return (
        f"none of its {photos} photos was found, the first is {visible_path(unknown[0])}; give their folder: --photos"
    )


def _sized(photo: LabelledPhoto) -> LabelledPhoto:
    if photo.width or photo.path is None:
        return photo
    width, height = upright_size(photo.path)
    return replace(photo, width=width, height=height)


def _said(photo: LabelledPhoto, words: set[str], other: Counter[str]) -> LabelledPhoto:
    """A photo without scores, and without other words; of a photo of other words alone, no word is left."""
    objects = tuple(replace(item, score=None) for item in photo.objects if not words or item.word in words)
    whole = photo.words
    if words:
        other.update(item.word for item in photo.objects if item.word not in words)
        other.update(word for word in whole or () if word not in words)
        whole = None if whole is None else tuple(word for word in whole if word in words)
    return replace(photo, objects=objects, words=whole, scores=(), none_share=None, by_model=False)


def unchanged(corrected: Sequence[LabelledPhoto], predicted: Sequence[LabelledPhoto]) -> tuple[int, int]:
    """How many photos, and how many boxes, a person left as a model had them."""
    before = {photo.name: photo for photo in predicted}
    by_last: dict[str, list[LabelledPhoto]] = {}
    for photo in predicted:
        by_last.setdefault(PurePosixPath(photo.name).name, []).append(photo)
    photos = boxes = 0
    for photo in corrected:
        alike = by_last.get(PurePosixPath(photo.name).name, [])
        model = before.get(photo.name) or (alike[0] if len(alike) == 1 else None)
        if model is None:
            continue
        same = len(list(_unmoved(photo.objects, model.objects)))
        boxes += same
        photos += same == len(photo.objects) == len(model.objects) and photo.words == model.words
    return photos, boxes


def _unmoved(corrected: Sequence[LabelledObject], predicted: Sequence[LabelledObject]) -> Iterator[LabelledObject]:
    left = list(predicted)
    for item in corrected:
        for other in left:
            same_mask = item.mask is not None and item.mask == other.mask  # its box may be another than the model's
            if item.word == other.word and (same_mask or _alike(item.box, other.box)):
                left.remove(other)
                yield item
                break


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    sides = [(box[0], box[1], box[0] + box[2], box[1] + box[3]) for box in (one, other)]
    return all(abs(here - there) <= UNMOVED for here, there in zip(*sides, strict=True))
