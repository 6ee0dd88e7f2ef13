"""What a prompt does to names that nobody corrected: do photos keep them, and do labelled ones get theirs?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pomp.learning.before_after import BeforeAfter
from prompt_core.evaluation.evaluate import load_test_set

if TYPE_CHECKING:
    from prompt_core.clip import Clip
    from prompt_core.data.images import ImageSet
    from prompt_core.methods.base import Method
    from prompt_core.vocabulary import Vocabulary

BEST = 5


@dataclass(frozen=True)
class Drift:
    """How answers move that nothing was learned for.

    Attributes:
        images: that were looked at.
        names: that they were asked for: other names than the words and their relatives.
        same: share of the images whose best other name is the same.
        same_of_five: share of the five best names before that still are among the five best.
    """

    images: int
    names: int
    same: float
    same_of_five: float

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def name_drift(features: np.ndarray, before: Tensor, after: Tensor) -> Drift:
    """Compare the best of other names under two prompts.

    Args:
        features: (n, E) unit-norm image features.
        before, after: (B, E) unit-norm features of the same names.
    """
    images = torch.from_numpy(features)
    old, new = ((images @ names.T).topk(min(BEST, len(names)), dim=1).indices for names in (before, after))  # (n, 5)
    same = (old[:, 0] == new[:, 0]).float().mean()
    kept = (old[:, :, None] == new[:, None, :]).any(dim=2).float().mean()
    return Drift(len(images), len(before), float(same), float(kept))


def labelled_others(
    clip: Clip, images: ImageSet, words: Vocabulary, before: Method, after: Method, cache: Path
) -> BeforeAfter:
    """Accuracy on labelled photos of other names, among these and the words.

    Args:
        words: the corrected words, which are candidates too.
        cache: folder of image features.
    """
    test_set = load_test_set(clip, images, "", cache)
    candidates, _ = test_set.candidates.including(words)
    groups, features = candidates.name_groups, torch.from_numpy(test_set.features)
    right = []
    for method in (before, after):
        with torch.no_grad():
            classes = method.class_features(candidates).cpu()
        best = (features @ classes.T).argmax(dim=1).numpy()
        right.append(np.asarray(groups[best] == groups[test_set.labels]))
    how = f"among their {len(test_set.candidates)} names and the words"
    return BeforeAfter("photos of other names", right[0], right[1], np.arange(len(features)), how)
