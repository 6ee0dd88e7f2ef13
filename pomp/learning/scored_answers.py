"""A model's answers to corrected photos, each with its score and whether a person agrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pomp.formats.labelled import LabelledPhoto
from prompt_core.data.open_photo import UnreadableImage, open_photo
from prompt_core.vocabulary import Vocabulary, plain_name

if TYPE_CHECKING:
    from pomp.models.photo_classifier import PhotoClassifier
    from pomp.models.photo_detector import PhotoDetector

OVERLAP = 0.5  # least intersection over union of a box that is found
_BATCH = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class ScoredAnswers:
    """Answers of a model with C words.

    Attributes:
        words: (n,) row of the word of each answer.
        scores: (n,) score or own share.
        right: (n,) booleans.
        known: (C,) times that a person gave each word.
        taken_for: how often a thing of the first word got the second one, as rows.
        photos: that were looked at.
        unreadable: names of those that could not be.
    """

    words: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    known: np.ndarray
    taken_for: Counter[tuple[int, int]]
    photos: int
    unreadable: list[str]


def photo_answers(
    model: PhotoClassifier, corrected: Sequence[LabelledPhoto], words: Vocabulary, progress: Progress
) -> ScoredAnswers:
    """The best word of each photo that a person named, or said to show none of the words."""
    row = {plain_name(word): place for place, word in enumerate(words.names)}
    asked = [photo for photo in corrected if photo.words is not None and photo.path is not None and not photo.scores]
    best, scores, right, unreadable = [], [], [], []
    known, taken_for = np.zeros(len(words), dtype=int), Counter[tuple[int, int]]()
    for start in range(0, len(asked), _BATCH):
        batch, images = [], []
        for photo in asked[start : start + _BATCH]:
            assert photo.path is not None
            try:
                images.append(open_photo(photo.path, photo.name))
                batch.append(photo)
            except UnreadableImage:
                unreadable.append(photo.name)
        for photo, answer in zip(batch, model.namer(images), strict=True):
            given = {row[plain_name(word)] for word in photo.words or () if plain_name(word) in row}
            word, share = answer.best[0]
            place = row[plain_name(word)]
            best.append(place)
            scores.append(share)
            right.append(place in given)
            known[list(given)] += 1
            if given and place not in given:
                taken_for[min(given), place] += 1
        progress(start + len(batch), len(asked))
    return ScoredAnswers(
        np.array(best, int), np.array(scores, float), np.array(right, bool), known, taken_for, len(best), unreadable
    )


def box_answers(
    model: PhotoDetector, corrected: Sequence[LabelledPhoto], words: Vocabulary, progress: Progress
) -> ScoredAnswers:
    """Every box that the model finds in photos whose things a person has boxed, all of them.

    A box is right where it overlaps a corrected one of its word that no better box has taken.
    """
    row = {plain_name(word): place for place, word in enumerate(words.names)}
    asked = [photo for photo in corrected if photo.path is not None and (photo.objects or photo.words == ())]
    known, taken_for = np.zeros(len(words), dtype=int), Counter[tuple[int, int]]()
    found: list[tuple[int, float, bool]] = []
    unreadable = []
    for number, photo in enumerate(asked):
        assert photo.path is not None
        truth = [
            (row[plain_name(thing.word)], thing.box)
            for thing in photo.objects
            if thing.score is None and plain_name(thing.word) in row
        ]
        try:
            pixels = np.asarray(open_photo(photo.path, photo.name))
        except UnreadableImage:
            unreadable.append(photo.name)
            continue
        detections = model.predictor.detect(pixels, model.threshold)
        boxes = detections.pred_boxes.tensor.numpy()
        labels, scores = detections.pred_classes.numpy(), detections.scores.numpy()
        overlaps = box_overlaps(boxes, np.array([box for _, box in truth], dtype=float).reshape(-1, 4))
        true_words = np.array([word for word, _ in truth], dtype=int)
        np.add.at(known, true_words, 1)
        found += matched_boxes(labels, scores, true_words, overlaps)
        taken_for.update(confusions(labels, scores, true_words, overlaps))
        progress(number + 1, len(asked))
    columns: Iterator[tuple[object, ...]] = zip(*found, strict=True) if found else iter(((), (), ()))
    best, values, right = columns
    return ScoredAnswers(
        np.array(best, int),
        np.array(values, float),
        np.array(right, bool),
        known,
        taken_for,
        len(asked) - len(unreadable),
        unreadable,
    )


def box_overlaps(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Intersection over union (n, m) of corners (n, 4) with boxes x, y, width, height (m, 4)."""
    corners = np.concatenate((true[:, :2], true[:, :2] + true[:, 2:]), axis=1)
    low = np.maximum(found[:, None, :2], corners[None, :, :2])
    high = np.minimum(found[:, None, 2:], corners[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)  # (n, m)
    areas = (found[:, 2:] - found[:, :2]).prod(axis=1)[:, None] + true[:, 2:].prod(axis=1)[None]
    return np.asarray(shared / np.maximum(areas - shared, 1e-9))


def matched_boxes(
    labels: np.ndarray, scores: np.ndarray, true_words: np.ndarray, overlaps: np.ndarray
) -> list[tuple[int, float, bool]]:
    """Word, score, and whether it is right, of each box, the best first; a corrected box is found once.

    Args:
        labels, scores: (n,) of the boxes, the best first.
        true_words: (m,) of the corrected boxes.
        overlaps: (n, m).
    """
    free = np.ones(len(true_words), dtype=bool)
    answers = []
    for box, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True)):
        candidates = np.flatnonzero(free & (true_words == label) & (overlaps[box] >= OVERLAP))
        if len(candidates):
            free[candidates[np.argmax(overlaps[box, candidates])]] = False
        answers.append((label, score, bool(len(candidates))))
    return answers


def confusions(
    labels: np.ndarray, scores: np.ndarray, true_words: np.ndarray, overlaps: np.ndarray
) -> list[tuple[int, int]]:
    """The word and the other word of each corrected box whose best box has another word."""
    pairs = []
    for thing, word in enumerate(true_words.tolist()):
        over = np.flatnonzero(overlaps[:, thing] >= OVERLAP)
        if len(over) and (other := int(labels[over[np.argmax(scores[over])]])) != word:
            pairs.append((word, other))
    return pairs
