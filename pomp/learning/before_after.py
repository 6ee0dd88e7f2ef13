"""Before and after: the same images answered twice, and how sure the difference is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
_NORMAL = 1.959964  # of LEVEL
_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class BeforeAfter:
    """Answers to the same images before and after.

    Attributes:
        title: what the images are.
        before, after: (n,) booleans: whether the answer is right.
        photo: (n,) the photo of each image.
        how: how the answers were come by.
    """

    title: str
    before: np.ndarray
    after: np.ndarray
    photo: np.ndarray
    how: str

    @property
    def gain(self) -> float:
        """The difference of the two shares, in -1 to 1."""
        return float(self.after.mean() - self.before.mean())

    @property
    def gain_interval(self) -> tuple[float, float]:
        """The middle 95 % of the difference over drawn photos."""
        return gain_interval(self.before, self.after, self.photo)

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``no difference that shows``."""
        low, high = self.gain_interval
        return "better" if low > 0 else "worse" if high < 0 else "no difference that shows"

    def describe(self) -> dict[str, Any]:
        """As plain values, in percent."""
        low, high = self.gain_interval
        return {
            "before": 100 * float(self.before.mean()),
            "after": 100 * float(self.after.mean()),
            "before_interval": [100 * value for value in wilson(int(self.before.sum()), len(self.before))],
            "after_interval": [100 * value for value in wilson(int(self.after.sum()), len(self.after))],
            "gain": 100 * self.gain,
            "gain_interval": [100 * low, 100 * high],
            "images": len(self.before),
            "photos": len(np.unique(self.photo)),
            "verdict": self.verdict,
            "how": self.how,
        }


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) without an observation.

    Source: E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not count:
        return 0.0, 1.0
    share, square = right / count, _NORMAL**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _NORMAL / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def gain_interval(before: np.ndarray, after: np.ndarray, photo: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The bootstrap's 95 % interval of ``after.mean() - before.mean()``.

    Photos are drawn, not images: the boxes of a photo are alike.

    Args:
        before, after: (n,) booleans.
        photo: (n,) the photo of each.
    """
    _, of = np.unique(photo, return_inverse=True)
    counts = np.bincount(of).astype(float)  # (P,)
    gains = np.bincount(of, weights=after.astype(float) - before.astype(float))  # (P,)
    draws = np.random.default_rng(seed).integers(len(counts), size=(_RESAMPLES, len(counts)))
    means = gains[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
