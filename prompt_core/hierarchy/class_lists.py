"""For each class some classes, without a table of all pairs: ImageNet-21K's 21,843 names would be 477 million."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prompt_core.errors import UserError


@dataclass(frozen=True, eq=False)
class ClassLists:
    """N lists of classes, one after the other.

    Attributes:
        starts: (N + 1,) int64; the list of class c is ``classes[starts[c] : starts[c + 1]]``.
        classes: (n,) int64, from 0 to N - 1.
    """

    starts: Tensor
    classes: Tensor

    @classmethod
    def of(cls, lists: Sequence[Iterable[int]]) -> ClassLists:
        """From N lists, of which repeated classes count once. Raises UserError for a class that is none of the N."""
        ordered = [sorted(set(one)) for one in lists]
        strange = next((row for one in ordered for row in one if not 0 <= row < len(ordered)), None)
        if strange is not None:
            raise UserError(f"lists of classes 0 to {len(ordered) - 1} are expected, given {strange}")
        sizes = torch.tensor([0, *map(len, ordered)], dtype=torch.long)
        return cls(sizes.cumsum(0), torch.tensor([row for one in ordered for row in one], dtype=torch.long))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def counts(self, labels: Tensor) -> Tensor:
        """(B,) int64, how long the list of each label (B,) is."""
        starts = self.starts.to(labels.device)
        return starts[labels + 1] - starts[labels]

    def mask(self, labels: Tensor) -> Tensor:
        """(B, N) booleans: which classes are in the list of each label (B,)."""
        starts, classes = self.starts.to(labels.device), self.classes.to(labels.device)
        counts = self.counts(labels)
        image = torch.arange(len(labels), device=labels.device).repeat_interleave(counts)  # (sum of counts,)
        place = torch.arange(len(image), device=labels.device) - (counts.cumsum(0) - counts)[image]
        mask = torch.zeros(len(labels), len(self), dtype=torch.bool, device=labels.device)
        mask[image, classes[starts[labels][image] + place]] = True
        return mask
