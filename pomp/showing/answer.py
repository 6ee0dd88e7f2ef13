"""What a model says of a photo, for every threshold at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pomp.formats.labelled import LabelledObject, LabelledPhoto
from pomp.formats.mask_shapes import box_of_mask, mask_of_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pomp.models.photo_model import Model


@dataclass(frozen=True)
class Answer:
    """What a model says of a photo.

    Attributes:
        task: ``detect``, ``classify`` or ``segment``.
        words: all that were asked for.
        photo: things with boxes, masks and scores; of a classifier the best words with own shares.
        pixels: (H, W, 3) uint8 in RGB.
        none: a classifier's share of "none of these".
        shares: of a segmenter, each found word's share of the photo, the largest first.
    """

    task: str
    words: tuple[str, ...]
    photo: LabelledPhoto
    pixels: np.ndarray
    none: float = 0.0
    shares: tuple[tuple[str, float], ...] = ()

    def at(self, threshold: float) -> LabelledPhoto:
        """What is left at a threshold: things that score as much, words of the whole photo above it."""
        things = tuple(thing for thing in self.photo.objects if thing.score is None or thing.score >= threshold)
        words, scores = self.photo.words, self.photo.scores
        if words is not None:
            above = [(word, share) for word, share in zip(words, scores, strict=True) if share > threshold]
            words, scores = tuple(word for word, _ in above), tuple(share for _, share in above)
        return replace(self.photo, objects=things, words=words, scores=scores)


def answer(model: Model, words: Sequence[str], pixels: np.ndarray, name: str) -> Answer:
    """The answer of a model whose words are set; its own threshold bounds what can be shown.

    Args:
        words: the model's, without the negative ones.
        pixels: (H, W, 3) uint8 in RGB.
        name: of the photo.
    """
    asked = tuple(words)
    height, width = pixels.shape[:2]
    if model.task == "segment":
        things, shares = _regions(model, pixels)
        return Answer(model.task, asked, LabelledPhoto(name, width, height, things), pixels, shares=shares)
    found = model.describe(pixels)
    if model.task == "classify":
        best = tuple(row["word"] for row in found["best"])
        own_shares = tuple(row["own_share"] for row in found["best"])
        photo = LabelledPhoto(name, width, height, words=best, scores=own_shares)
        return Answer(model.task, asked, photo, pixels, none=found["none_of_these"])
    rows = found["detections"]
    things = tuple(LabelledObject(r["word"], tuple(r["bbox"]), r["score"], r.get("segmentation")) for r in rows)
    return Answer(model.task, asked, LabelledPhoto(name, width, height, things), pixels)


def _regions(model: Model, pixels: np.ndarray) -> tuple[tuple[LabelledObject, ...], tuple[tuple[str, float], ...]]:
    """A segmenter's words as things, one for all pixels of a word; and the words' shares of the photo."""
    found = model.predict(pixels)
    if found.mask is None or found.confidence is None:
        return (), ()
    things, shares = [], []
    for word, score, mask in zip(found.data["class_name"], found.confidence, found.mask, strict=True):
        runs = mask_of_pixels(mask)
        things.append(LabelledObject(str(word), box_of_mask(runs), float(score), runs))
        shares.append((str(word), float(mask.mean())))
    return tuple(things), tuple(sorted(shares, key=lambda row: -row[1]))
