"""Photos in, a word for each or "none of these"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prompt_core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from prompt_core.classifier import TextClassifier
    from prompt_core.clip import Clip

THRESHOLD = 0.5  # more than all other names together


@dataclass(frozen=True)
class PhotoWord:
    """What a photo shows.

    Attributes:
        word: the word with the largest own share, or None for none of them.
        share: that word's own share, also where it is not enough.
        none: the share of "none of these".
        best: the words with the largest own shares, with them.
    """

    word: str | None
    share: float
    none: float
    best: tuple[tuple[str, float], ...]


def photo_words(
    shares: Tensor, names: Sequence[str], threshold: float | Sequence[float] = THRESHOLD, best: int = 5
) -> list[PhotoWord]:
    """Answers from own shares.

    Args:
        shares: (batch, N), see :meth:`prompt_core.TextClassifier.own_share`.
        names: N words.
        threshold: a word is the answer where its share is above this; one for each word, or one for all.
        best: words that an answer lists.
    """
    shares = shares.double().cpu()
    bounds = [float(threshold)] * len(names) if isinstance(threshold, int | float) else list(threshold)
    values, rows = shares.topk(min(best, shares.shape[1]), dim=1)
    none = (1 - shares.sum(dim=1)).clamp(min=0)
    answers = []
    for of_photo, words, rest in zip(values.tolist(), rows.tolist(), none.tolist(), strict=True):
        listed = tuple((names[row], share) for row, share in zip(words, of_photo, strict=True))
        word = listed[0][0] if listed[0][1] > bounds[words[0]] else None
        answers.append(PhotoWord(word, listed[0][1], rest, listed))
    return answers


class PhotoNamer:
    """Names photos by a classifier's words.

    Attributes:
        clip: the CLIP that made the classifier.
        classifier: with a background.
        threshold: a word is the answer where its own share is above this; one for each word, or one for all.
    """

    def __init__(self, clip: Clip, classifier: TextClassifier, threshold: float | Sequence[float] = THRESHOLD) -> None:
        """Raises UserError for a classifier without background, of another width, or a threshold outside [0, 1)."""
        if classifier.background is None:
            raise UserError("this classifier has no background; build it with background='imagenet21k' or negatives=")
        if classifier.weight.shape[1] != clip.embed_dim:
            raise UserError(
                f"the classifier has width {classifier.weight.shape[1]}, {clip.name} {clip.embed_dim}; build it with "
                "this CLIP"
            )
        bounds = [threshold] if isinstance(threshold, int | float) else list(threshold)
        wrong = next((bound for bound in bounds if not 0 <= bound < 1), None)
        if wrong is not None:
            raise UserError(f"a threshold of own shares from 0 to below 1 is expected, given {wrong}")
        self.clip, self.classifier, self.threshold = clip, classifier, threshold

    def __call__(self, photos: Sequence[Image]) -> list[PhotoWord]:
        """The answer for each of a batch of photos."""
        if not photos:
            return []
        return self.answers(torch.stack([self.clip.preprocess(photo) for photo in photos]))

    def answers(self, images: Tensor) -> list[PhotoWord]:
        """The answer for each of a batch (B, 3, S, S) of photos that the CLIP's transform has prepared."""
        features = self.clip.encode_image(images)
        return photo_words(self.classifier.own_share(features), self.classifier.names, self.threshold)
