"""Records of the loop over photos, as photos with words that every format writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pomp.formats.labelled import LabelledObject, LabelledPhoto, answer_of
from pomp.formats.mask_shapes import box_of_mask, mask_of_pixels
from prompt_core.data.open_photo import opened_image
from prompt_core.photos.photo_list import NamedPhoto


def labelled_photo(
    task: str, photo: NamedPhoto, record: dict[str, Any], names: Sequence[str], folder: Path
) -> LabelledPhoto:
    """What a record says.

    Args:
        task: ``classify``, ``detect`` or ``segment``.
        names: the words that were asked for, in the order of the model's.
        folder: of the loop, where a segmenter's label maps lie.
    """
    objects: tuple[LabelledObject, ...] = ()
    words: tuple[str, ...] | None = None
    scores: tuple[float, ...] = ()
    if task == "classify":
        words, scores = words_of_answer(record)
    elif task == "detect":
        objects = tuple(_detection(row, names) for row in record["detections"])
    else:
        objects = _regions(record, set(names), folder)
    return LabelledPhoto(
        photo.name,
        record["width"],
        record["height"],
        objects,
        words,
        scores,
        photo.path if photo.within is None else None,
        record.get("none_of_these"),
        None if photo.within is None else photo.read,
        by_model=True,
    )


def words_of_answer(record: dict[str, Any]) -> tuple[tuple[str, ...] | None, tuple[float, ...]]:
    """Words of a whole photo and their own shares from a classifier's record, as :class:`LabelledPhoto` has them."""
    if record["word"] is not None:
        return (record["word"],), (record["own_share"],)
    return (() if answer_of(None, record["none_of_these"]) else None), ()


def _detection(row: dict[str, Any], names: Sequence[str]) -> LabelledObject:
    x, y, width, height = row["bbox"]
    return LabelledObject(names[row["category_id"] - 1], (x, y, width, height), row["score"], row.get("segmentation"))


def _regions(record: dict[str, Any], asked: set[str], folder: Path) -> tuple[LabelledObject, ...]:
    """The pixels of each word that was asked for."""
    with opened_image(folder / record["label_map"]) as image:
        labels = np.asarray(image)  # (H, W)
    found = [entry for entry in record["classes"] if entry["name"] in asked]
    return tuple(region(labels, entry["index"], entry["name"], entry["score"]) for entry in found)


def region(labels: np.ndarray, index: int, word: str, score: float) -> LabelledObject:
    """The pixels of a word in a label map (H, W)."""
    mask = mask_of_pixels(labels == index)
    return LabelledObject(word, box_of_mask(mask), score, mask)
