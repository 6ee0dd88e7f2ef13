"""Which names are kinds of a user's word, and count for it: a photo of a beagle shows a dog.

A general word is seldom as near to a photo as the names of its kinds, so the word collects their probabilities: CHiLS
(arXiv 2302.02551) with WordNet's hierarchy, in the sum over all names that own shares are taken from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prompt_core.background.hypernyms import Hypernyms
from prompt_core.errors import UserError

NOBODY = -1


@dataclass(frozen=True, eq=False)
class Kinds:
    """Names whose probabilities count for words.

    Attributes:
        weight: (K, E) float32, unit-norm rows.
        names: K names.
        word: (K,) the row of the word that each counts for.
    """

    weight: Tensor
    names: Sequence[str]
    word: Tensor

    def __post_init__(self) -> None:
        if not self.weight.dim() == 2 or not len(self.weight) == len(self.names) == len(self.word):
            raise UserError(f"kinds (K, E) with K names and words are expected, given {tuple(self.weight.shape)}")
        # one photo's products take half the time so
        object.__setattr__(self, "weight", self.weight.float().cpu().T.contiguous().T)

    def __len__(self) -> int:
        return len(self.names)


def nearest_above(senses: Sequence[Iterable[int]], hierarchy: Hypernyms) -> np.ndarray:
    """For each synset the nearest word above it, (S,) int; the synset of a word has the word, others may have -1.

    Args:
        senses: synsets of each word, rows of the hierarchy. Of words that are as near the first counts.
    """
    owner = np.full(len(hierarchy.parents), NOBODY)
    frontier: list[int] = []
    for word, rows in enumerate(senses):
        for row in sorted(rows):
            if owner[row] == NOBODY:
                owner[row] = word
                frontier.append(row)
    while frontier:  # level by level from all words at once
        reached = []
        for row in frontier:
            for child in hierarchy.children[row]:
                if owner[child] == NOBODY:
                    owner[child] = owner[row]
                    reached.append(child)
        frontier = reached
    return owner


def with_kinds(logits: Tensor, of_kinds: Tensor, word: Tensor) -> Tensor:
    """Log-sum-exp (batch, N) of each word's logit and those of its kinds, of which there are some.

    Args:
        logits: (batch, N) of the words.
        of_kinds: (batch, K).
        word: (K,) the word of each kind.
    """
    largest = torch.maximum(logits.amax(dim=1), of_kinds.amax(dim=1))[:, None]  # (batch, 1)
    total = (logits - largest).exp()  # (batch, N)
    total = total.index_add(1, word.to(logits.device), (of_kinds - largest).exp())
    return total.log() + largest
