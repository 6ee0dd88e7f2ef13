"""Own shares of regions: a class's probability against all classes and a background of other names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prompt_core.background.own_share import background_total

_PAIRS = 1 << 14  # scored at once


class RegionShares(NamedTuple):
    """The factors of the own shares (R, C) of R regions, without the table.

    Attributes:
        embedding: (R, E) unit-norm region embeddings times the logit scale.
        words: (E, C) unit-norm class features in columns.
        total: (R,) log-sum-exp of the logits of all classes and the background.
    """

    embedding: Tensor
    words: Tensor
    total: Tensor

    @classmethod
    def of(cls, embedding: Tensor, words: Tensor, background: Tensor, logit_scale: float) -> RegionShares:
        """Shares of unit-norm embeddings (R, E), for class features (E, C) and background features (B, E)."""
        both = (background_total(embedding, rows, logit_scale) for rows in (words.T, background))
        return cls(logit_scale * embedding, words, torch.logaddexp(*both))

    def table(self) -> Tensor:
        """All shares (R, C)."""
        return (self.embedding @ self.words - self.total[:, None]).exp()

    def of_pairs(self, regions: Tensor, classes: Tensor) -> Tensor:
        """Shares (n,) of pairs of region and class."""
        parts = [
            (self.embedding[rows] * self.words[:, columns].T).sum(dim=1) - self.total[rows]
            for rows, columns in zip(regions.split(_PAIRS), classes.split(_PAIRS), strict=True)
        ]
        return torch.cat(parts).exp()

    def rows(self, regions: Tensor) -> RegionShares:
        """Those of some regions."""
        return self._replace(embedding=self.embedding[regions], total=self.total[regions])

    def of_classes(self, classes: Tensor) -> RegionShares:
        """Those of some classes, which stay what they are among all."""
        return self._replace(words=self.words[:, classes])

    def split(self, sizes: Sequence[int]) -> list[RegionShares]:
        """Those of all images together as those of each image."""
        parts = zip(self.embedding.split(list(sizes)), self.total.split(list(sizes)), strict=True)
        return [self._replace(embedding=embedding, total=total) for embedding, total in parts]
