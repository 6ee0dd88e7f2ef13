"""What a prompt is worth, by photos and by words that it was not learned on, with no further label."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from pomp.learning.before_after import BeforeAfter
from pomp.learning.learn_prompt import Learner, word_logits
from prompt_core.methods.templates import TemplateMethod

if TYPE_CHECKING:
    from pomp.learning.encoded import EncodedExamples
    from prompt_core.methods.base import Method

MANY = 2000  # examples of which one part is held out, instead of each in turn
FEWEST_PHOTOS = 10
FEWEST_OF_HALF = 10  # examples of a half of the words, below which nothing is measured by it

Progress = Callable[[int, int], None]


def photos_held_out(
    learner: Learner, template: str, share: float, progress: Progress = lambda done, of: None
) -> BeforeAfter | None:
    """Accuracy among the words on photos that were not learned on.

    Each photo is held out once (cross-validation), or one part of them where there are many.

    Args:
        template: what "before" is.
        share: of the photos that are held out at once.

    Returns:
        None where there are too few photos.
    """
    encoded = learner.encoded
    fold = folds(encoded.photo, share, learner.cfg.SEED)
    if fold is None:
        return None
    number = int(fold.max()) + 1
    turns = range(1 if len(fold) > MANY else number)
    before = right_words(TemplateMethod(learner.clip, templates=[template]), encoded, np.arange(len(fold)))
    after = np.zeros(len(fold), dtype=bool)
    for turn in turns:
        learned = learner.learn(np.flatnonzero(fold != turn), progress)
        out = np.flatnonzero(fold == turn)
        after[out] = right_words(learned.method, encoded, out)
    scored = np.isin(fold, list(turns))
    how = f"{number}-fold cross-validation" if len(turns) > 1 else f"one photo in {number} held out"
    return BeforeAfter("corrected words", before[scored], after[scored], encoded.photo[scored], how)


def words_held_out(learner: Learner, template: str, progress: Progress = lambda done, of: None) -> BeforeAfter | None:
    """Accuracy of words that have no corrections: each half of the words, learned on the other half alone.

    All words are candidates. So what learning takes from other words to give to the corrected ones shows.

    Returns:
        None where a half has too few examples.
    """
    encoded = learner.encoded
    halves = word_halves(encoded.labels, learner.cfg.SEED)
    if min(len(np.flatnonzero(halves == half)) for half in (0, 1)) < FEWEST_OF_HALF:
        return None
    before = right_words(TemplateMethod(learner.clip, templates=[template]), encoded, np.arange(len(halves)))
    after = np.zeros(len(halves), dtype=bool)
    for half in (0, 1):
        learned = learner.learn(np.flatnonzero(halves != half), progress)
        out = np.flatnonzero(halves == half)
        after[out] = right_words(learned.method, encoded, out)
    how = "learned on the other half of the words"
    return BeforeAfter("words without corrections", before, after, encoded.photo, how)


def right_words(method: Method, encoded: EncodedExamples, rows: np.ndarray) -> np.ndarray:
    """(n,) booleans: the best of the words is one that a person gave."""
    with torch.no_grad():
        best = word_logits(method, torch.from_numpy(encoded.plain[rows]), encoded.words).argmax(dim=1).numpy()
    return np.asarray(encoded.right[rows, best])


def folds(photo: np.ndarray, share: float, seed: int) -> np.ndarray | None:
    """The fold (n,) of each example, all of a photo in one; None where photos are too few.

    Args:
        photo: (n,) the photo of each example.
        share: of the photos in a fold, from 0 to below 1.
    """
    photos = np.unique(photo)
    if share <= 0 or len(photos) < FEWEST_PHOTOS:
        return None
    number = max(2, min(round(1 / share), len(photos)))
    order = np.random.default_rng([seed, 1]).permutation(photos)
    of_photo = dict(zip(order.tolist(), (np.arange(len(order)) % number).tolist(), strict=True))
    return np.array([of_photo[one] for one in photo.tolist()])


def word_halves(labels: np.ndarray, seed: int) -> np.ndarray:
    """The half (n,), 0 or 1, of each example's word; both have about as many examples."""
    words, counts = np.unique(labels, return_counts=True)
    order = np.random.default_rng([seed, 2]).permutation(len(words))
    totals, half = [0, 0], {}
    for place in sorted(order.tolist(), key=lambda place: -counts[place]):
        smaller = int(totals[1] < totals[0])
        half[int(words[place])] = smaller
        totals[smaller] += int(counts[place])
    return np.array([half[label] for label in labels.tolist()])
