"""How often "none of these" is right: own shares against a softmax over the words and a cosine threshold.

Words are drawn from the classes of labelled photos. Photos of the other classes should get no answer, photos of the
words' classes the right word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prompt_core.background.background import Background, background_of
from prompt_core.background.own_share import own_shares
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary, plain_name

BINS = 10
SCALES = (20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 80, 90, 100, 120, 150)  # logit scales that are tried
OWN, BLIND, SOFTMAX, COSINE = "own share", "own share, names unknown", "softmax over the words", "cosine"


@dataclass(frozen=True, eq=False)
class LabelledPhotos:
    """Photos with their classes.

    Attributes:
        name: of the data set.
        features: (n, E) unit-norm float32.
        labels: (n,) rows of ``classes``.
        classes: C classes; those of one name count as one.
        class_features: (C, E) unit-norm.
        ids: of the classes, where they are known.
    """

    name: str
    features: Tensor
    labels: Tensor
    classes: Vocabulary
    class_features: Tensor
    ids: Sequence[int | str] = ()

    def draws(self, size: int, seed: int, number: int) -> list[np.ndarray]:
        """``number`` sets of ``size`` classes of different names, sorted rows; none that leaves no class out."""
        names = np.unique(self.classes.name_groups, return_index=True)[1]
        if size >= len(names):
            return []
        generator = np.random.default_rng([seed, size])
        return [np.sort(generator.permutation(names)[:size]) for _ in range(number)]

    def words(self, rows: np.ndarray) -> Vocabulary:
        """The words that a user would type: names without ids."""
        return Vocabulary([self.classes.names[row] for row in rows], source="drawn words")

    def targets(self, rows: np.ndarray) -> Tensor:
        """(n,) place of each photo's class among the words, -1 where it is none of them."""
        groups = self.classes.name_groups
        place = {int(groups[row]): number for number, row in enumerate(rows)}
        of_class = torch.tensor([place.get(int(group), -1) for group in groups])
        return of_class[self.labels]


@dataclass
class Tally:
    """Counts of photos over several draws of words, and the two ratios that matter.

    Attributes:
        inside: photos whose class is among the words; ``inside_answered``: those that got an answer.
        outside, outside_answered: the same of photos whose class is not among them.
        right: photos that got the right word.
    """

    inside: int = 0
    inside_answered: int = 0
    outside: int = 0
    outside_answered: int = 0
    right: int = 0

    def add(self, scores: Tensor, targets: Tensor, threshold: float) -> None:
        """Count the answers: the best word where its score (n, N) is above the threshold."""
        best, words = scores.max(dim=1)
        answered, inside = best > threshold, targets >= 0
        self.inside += int(inside.sum())
        self.outside += int((~inside).sum())
        self.inside_answered += int((answered & inside).sum())
        self.outside_answered += int((answered & ~inside).sum())
        self.right += int((answered & (words == targets)).sum())

    def percent(self) -> dict[str, float]:
        """``precision``: right answers among all; ``coverage``: photos of the words that get an answer; ``refused``:
        other photos that get none. NaN where there is nothing to divide by."""

        def share(part: int, whole: int) -> float:
            return 100 * part / whole if whole else float("nan")

        return {
            "precision": share(self.right, self.inside_answered + self.outside_answered),
            "coverage": share(self.inside_answered, self.inside),
            "refused": share(self.outside - self.outside_answered, self.outside),
        }


@dataclass
class Reliability:
    """Best scores in bins of equal width: photos, the sum of their scores, and how many of them were right."""

    photos: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    right: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Count the best word of each photo by its score in [0, 1]."""
        best, words = scores.double().max(dim=1)
        bins = (best * BINS).long().clamp(max=BINS - 1).numpy()
        np.add.at(self.photos, bins, 1)
        np.add.at(self.scores, bins, best.numpy())
        np.add.at(self.right, bins, (words == targets).double().numpy())

    def merge(self, other: Reliability) -> None:
        """Count what another one has counted, too."""
        self.photos, self.scores = self.photos + other.photos, self.scores + other.scores
        self.right = self.right + other.right

    def rows(self) -> list[dict[str, float]]:
        """Bins with photos: number, mean score and share that was right, both in percent."""
        columns = zip(self.photos, self.scores, self.right, strict=True)
        return [
            {"photos": int(photos), "score": float(100 * scores / photos), "right": float(100 * right / photos)}
            for photos, scores, right in columns
            if photos
        ]

    @property
    def error(self) -> float:
        """Expected calibration error in percent: the mean over photos of |score - right| of their bin."""
        return float(100 * np.abs(self.scores - self.right).sum() / max(self.photos.sum(), 1))


@dataclass(frozen=True)
class Judge:
    """What a measurement needs besides photos.

    Attributes:
        wide: the background vocabulary.
        features: its features (B, E).
        made_with: what determines them, as JSON.
        clip_scale: the logit scale of the CLIP, for the softmax over the words.
    """

    wide: Vocabulary
    features: Tensor
    made_with: Any
    clip_scale: float

    def background(self, photos: LabelledPhotos, rows: np.ndarray) -> Background:
        """The background of drawn words."""
        words, features = photos.words(rows), photos.class_features[torch.from_numpy(rows)]
        return background_of(words, features, self.wide, (), lambda _: self.features, 1.0, self.made_with)

    def scores(self, photos: LabelledPhotos, rows: np.ndarray, scale: float) -> dict[str, Tensor]:
        """(n, N) of each way to score; for :data:`BLIND` the background has no name of the photos' classes."""
        words = photos.class_features[torch.from_numpy(rows)]
        cosines = photos.features @ words.T
        background = self.background(photos, rows)
        known = {plain_name(name) for name in photos.classes.names}
        blind = [row for row, name in enumerate(background.names) if plain_name(name) not in known]
        return {
            OWN: own_shares(photos.features, words, background.weight, scale, kinds=background.kinds),
            BLIND: own_shares(photos.features, words, background.weight[blind], scale, kinds=background.kinds),
            SOFTMAX: (self.clip_scale * cosines).softmax(dim=1),
            COSINE: cosines,
        }


def answers_by_scale(
    judge: Judge, photos: LabelledPhotos, draws: Sequence[np.ndarray], threshold: float
) -> dict[float, dict[str, float]]:
    """``share``, the mean own share of the answers, and their ``precision``, in percent, at each of :data:`SCALES`.

    Args:
        threshold: a photo is answered where its best own share is above it.
    """
    counts = {scale: np.zeros(3) for scale in SCALES}  # answers, the sum of their shares, right ones
    for rows in draws:
        words, targets = photos.class_features[torch.from_numpy(rows)], photos.targets(rows)
        background = judge.background(photos, rows)
        for scale in SCALES:
            shares = own_shares(photos.features, words, background.weight, scale, kinds=background.kinds)
            best, chosen = shares.max(dim=1)
            answered = best > threshold
            right = answered & (chosen == targets)
            counts[scale] += (int(answered.sum()), float(best[answered].double().sum()), int(right.sum()))
    return {
        scale: {"share": float(100 * shares / answers), "precision": float(100 * right / answers)}
        for scale, (answers, shares, right) in counts.items()
        if answers
    }


def chosen_scale(answers: Collection[Mapping[float, Mapping[str, float]]]) -> float:
    """The scale at which answers are right as often as their shares say, by the mean difference over ``answers``.

    Raises:
        UserError: when no photo was answered.
    """
    usable = [scale for scale in SCALES if answers and all(scale in numbers for numbers in answers)]
    if not usable:
        raise UserError("no photo was answered, so that no logit scale can be chosen; take more photos or words")

    def difference(scale: float) -> float:
        return sum(abs(numbers[scale]["share"] - numbers[scale]["precision"]) for numbers in answers)

    return min(usable, key=difference)


def cosine_threshold(cosines: Tensor, coverage: float) -> float:
    """The cosine that the share ``coverage`` (in [0, 1]) of ``cosines`` (n,) is above."""
    ordered = cosines.sort(descending=True).values
    return float(ordered[min(int(coverage * len(ordered)), len(ordered) - 1)])


def measured(
    judge: Judge,
    photos: LabelledPhotos,
    sizes: Sequence[int],
    seed: int,
    number: int,
    scale: float,
    thresholds: Mapping[str, float],
) -> Iterator[tuple[int, dict[str, Tally], dict[str, Reliability]]]:
    """For each number of words that the classes allow: counts and reliability of each way to score.

    Args:
        number: draws of words.
        scale: logit scale of own shares.
        thresholds: of each way to score.
    """
    for size in sizes:
        draws = photos.draws(size, seed, number)
        tallies = {name: Tally() for name in thresholds}
        curves = {name: Reliability() for name in thresholds if name != COSINE}
        for rows in draws:
            targets = photos.targets(rows)
            for name, scores in judge.scores(photos, rows, scale).items():
                tallies[name].add(scores, targets, thresholds[name])
                if name in curves:
                    curves[name].add(scores, targets)
        if draws:
            yield size, tallies, curves
