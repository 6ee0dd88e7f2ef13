"""Class probabilities of a stage that are no function of one table of logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class ClassProbabilities(NamedTuple):
    """What a stage of several experts gives in the place of logits.

    Attributes:
        table: (R, C + 1) in 0..1, the background last; rows need not add up to 1.
    """

    table: Tensor

    def split(self, sizes: Sequence[int]) -> list[ClassProbabilities]:
        """Those of all images together as those of each image."""
        return [ClassProbabilities(part) for part in self.table.split(list(sizes))]

    def of_classes(self, classes: Tensor) -> ClassProbabilities:
        """Those of some classes (K,), and the background's."""
        return ClassProbabilities(self.table[:, [*classes.tolist(), self.table.shape[1] - 1]])
