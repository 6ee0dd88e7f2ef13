"""A threshold for each word: the lowest that reaches a wanted precision on corrected photos, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pomp.learning.before_after import wilson
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import check
from prompt_core.errors import UserError
from prompt_core.files import write_json
from prompt_core.vocabulary import plain_name

FORMAT = 1
FEWEST = 5  # answers that a threshold rests on
REACHED, NOT_REACHED, TOO_FEW = "reached", "not reached", "too few answers"


class WordThreshold(msgspec.Struct, frozen=True):
    """The threshold of a word.

    Attributes:
        threshold: of the score or the own share; answers above it are taken.
        status: ``reached``; ``not reached``, where the threshold is that of the highest precision, or the default
            where that is higher; or ``too few answers``, where it is the default.
        right, answers: of the corrected photos at this threshold.
        interval: Wilson's 95 % interval of the precision.
        known: times that a person gave the word.
    """

    threshold: float
    status: str
    right: int
    answers: int
    interval: tuple[float, float]
    known: int

    @property
    def precision(self) -> float:
        """Right answers among all; NaN without an answer."""
        return self.right / self.answers if self.answers else float("nan")


class _Document(msgspec.Struct):
    format: int
    task: str
    precision: float
    default: float
    words: dict[str, WordThreshold]
    confused: list[dict[str, Any]] = []
    about: dict[str, Any] = {}


@dataclass(frozen=True)
class WordThresholds:
    """Thresholds by word.

    Attributes:
        task: ``classify`` for own shares of photos, ``detect`` for scores of boxes.
        precision: that was wanted.
        default: of words that the corrections say nothing about.
        words: those of the corrections.
        confused: pairs of words that are taken for each other, see :mod:`pomp.learning.confused_words`.
        about: the model, the prompt and the number of photos.
    """

    task: str
    precision: float
    default: float
    words: dict[str, WordThreshold]
    confused: list[dict[str, Any]]
    about: dict[str, Any]

    def of(self, names: Sequence[str]) -> list[float]:
        """The threshold of each name."""
        known = {plain_name(word): entry.threshold for word, entry in self.words.items()}
        return [known.get(plain_name(name), self.default) for name in names]

    def save(self, path: Path) -> None:
        """Write ``thresholds.json``."""
        words = {word: msgspec.to_builtins(entry) for word, entry in self.words.items()}
        write_json(
            path,
            {
                "format": FORMAT,
                "task": self.task,
                "precision": self.precision,
                "default": self.default,
                "words": words,
                "confused": self.confused,
                "about": self.about,
            },
        )

    @classmethod
    def load(cls, path: str | Path, task: str = "") -> WordThresholds:
        """Read what :meth:`save` wrote.

        Args:
            task: what it is wanted for; own shares and scores are not the same.

        Raises:
            UserError: an absent or malformed file, thresholds outside 0 to 1, or those of another task.
        """
        file = Path(path)
        document: _Document = check(read_json(file), _Document, file)
        if document.format != FORMAT:
            raise UserError(f"{file} is of format {document.format}; format {FORMAT} of pomp thresholds is expected")
        numbers = [document.default, *(entry.threshold for entry in document.words.values())]
        if not all(0 <= number <= 1 for number in numbers):
            raise UserError(f"{file}: a threshold is outside 0 to 1")
        if task and document.task != task:
            raise UserError(f"{file} has thresholds to {document.task}, and they are used to {task}; make others")
        return cls(
            document.task, document.precision, document.default, document.words, document.confused, document.about
        )


def choose_threshold(
    scores: np.ndarray, right: np.ndarray, known: int, precision: float, default: float, sure: bool = False
) -> WordThreshold:
    """The lowest threshold of a word whose answers are right often enough.

    Args:
        scores: (n,) of the answers with this word, in 0 to 1.
        right: (n,) booleans.
        known: times that a person gave the word.
        precision: that is wanted.
        default: where there are fewer than :data:`FEWEST` answers.
        sure: the lower end of the interval has to reach the precision, not the share itself.
    """
    if len(scores) < FEWEST:
        return _entry(default, TOO_FEW, scores, right, known)
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(right[order])
    taken = np.arange(1, len(scores) + 1)
    # A threshold lies between two scores that differ, and below the last one.
    ends = np.append(sorted_scores[:-1] > sorted_scores[1:], True) & (taken >= FEWEST)
    counts = np.flatnonzero(ends)
    reached = hits / taken
    value = np.array([wilson(int(hits[row]), int(taken[row]))[0] for row in counts]) if sure else reached[counts]
    enough = counts[value >= precision]
    best = int(enough[-1]) if len(enough) else int(counts[np.argmax(value)])
    if best + 1 < len(scores):
        threshold = (float(sorted_scores[best]) + float(sorted_scores[best + 1])) / 2
    else:  # every answer is taken, and nothing is known of lower ones
        threshold = min(default, float(sorted_scores[best]) * (1 - 1e-6))
    if not len(enough):
        return _entry(max(threshold, default), NOT_REACHED, scores, right, known)
    return _entry(threshold, REACHED, scores, right, known)


def _entry(threshold: float, status: str, scores: np.ndarray, right: np.ndarray, known: int) -> WordThreshold:
    taken = scores > threshold
    hits, count = int(right[taken].sum()), int(taken.sum())
    return WordThreshold(float(threshold), status, hits, count, wilson(hits, count), known)
