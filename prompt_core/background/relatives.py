"""Which names of a background say the same as a user's word, or more or less than it, and are no answer against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prompt_core.background.hypernyms import Hypernyms
from prompt_core.background.kinds import NOBODY, nearest_above
from prompt_core.vocabulary import Vocabulary, plain_name

# Cosine of two names' text features from which they are one: see docs/classification.md for what was measured.
SAME_TEXT = 0.95
AGAINST = -2  # a kind of a negative word
_ROWS = 1024  # background names compared at once


@dataclass(frozen=True, eq=False)
class Comparison:
    """Words beside a background of B names, compared once.

    Attributes:
        hierarchy: of all names; None where there are no words or no names.
        senses: the synsets of each word.
        of_names: the synsets of each name.
        same: (B,) names that say the same as a word: its text but for case and underscores, or nearly its feature.
    """

    hierarchy: Hypernyms | None
    senses: Sequence[set[int]]
    of_names: Sequence[set[int]]
    same: np.ndarray

    @classmethod
    def of(
        cls,
        words: Vocabulary,
        background: Vocabulary,
        word_features: Tensor,
        background_features: Tensor,
        hypernyms: Callable[[], Hypernyms],
        same_text: float = SAME_TEXT,
    ) -> Comparison:
        """Compare N words with B names.

        Args:
            words: WordNet ids say which sense is meant.
            word_features: (N, E) unit-norm, of the same prompt as ``background_features`` (B, E).
            hypernyms: gives the hierarchy; it is asked for only where there are words and names.
            same_text: least cosine of names that are one.
        """
        if not len(words) or not len(background):
            return cls(None, [], [], np.zeros(len(background), dtype=bool))
        hierarchy = hypernyms()
        texts = {plain_name(name) for row in range(len(words)) for name in _names(words, row)}
        same = np.array([plain_name(name) in texts for name in background.names])
        same |= same_texts(word_features, background_features, same_text)
        senses, of_names = (_senses_of_all(vocabulary, hierarchy) for vocabulary in (words, background))
        return cls(hierarchy, senses, of_names, same)

    def relatives(self) -> np.ndarray:
        """Names to be taken out of the background, (B,) booleans, see :func:`relatives`."""
        if self.hierarchy is None:
            return self.same.copy()
        related = self.hierarchy.related(row for rows in self.senses for row in rows)
        return self.same | np.array([bool(related & own) for own in self.of_names])

    def kinds(self, negatives: Vocabulary) -> np.ndarray:
        """For each name the word that it is a kind of, (B,) int; -1 for most names.

        A name below several words is a kind of the nearest; below a negative word, of none (-2: it stays in the
        background). What is also above a word, and what says the same as one, is no kind.
        """
        found = np.full(len(self.same), NOBODY)
        if self.hierarchy is None:
            return found
        owner = nearest_above([*self.senses, *_senses_of_all(negatives, self.hierarchy)], self.hierarchy)
        above = self.hierarchy.above(row for rows in self.senses for row in rows)
        for row, own in enumerate(self.of_names):
            owners = {int(owner[sense]) for sense in own} - {NOBODY}
            if len(owners) == 1 and not self.same[row] and not own & above:
                word = owners.pop()
                found[row] = word if word < len(self.senses) else AGAINST
        return found


def relatives(
    words: Vocabulary,
    background: Vocabulary,
    word_features: Tensor,
    background_features: Tensor,
    hypernyms: Callable[[], Hypernyms],
    same_text: float = SAME_TEXT,
) -> np.ndarray:
    """Names of a background to be taken out, (B,) booleans.

    Taken out are a word's synonyms, what is above it and what is below it in WordNet, in each of its senses; names that
    are the word, but for case and underscores; and names whose text features nearly are the word's. A word that is no
    lemma of ImageNet-21K's synsets has no relatives in WordNet. What is below a word counts for it instead, see
    :meth:`Comparison.kinds`.

    Args: see :meth:`Comparison.of`.
    """
    return Comparison.of(words, background, word_features, background_features, hypernyms, same_text).relatives()


def same_texts(word_features: Tensor, background_features: Tensor, bound: float = SAME_TEXT) -> np.ndarray:
    """Names (B,) whose feature has a cosine of at least ``bound`` with one of the words'."""
    parts = [(rows @ word_features.T).amax(dim=1) >= bound for rows in background_features.split(_ROWS)]
    return np.asarray(torch.cat(parts).numpy())


def _senses_of_all(vocabulary: Vocabulary, hierarchy: Hypernyms) -> list[set[int]]:
    return [set(_senses(vocabulary, row, hierarchy)) for row in range(len(vocabulary))]


def _senses(vocabulary: Vocabulary, row: int, hierarchy: Hypernyms) -> Iterable[int]:
    """The synset that a class is by its WordNet id, else all that its names may mean."""
    synset = hierarchy.synset_of(vocabulary, row)
    if synset is not None:
        return (synset,)
    return set().union(*(hierarchy.senses_of(name) for name in _names(vocabulary, row)))


def _names(vocabulary: Vocabulary, row: int) -> list[str]:
    return [vocabulary.names[row], *(vocabulary.synonyms[row] if vocabulary.synonyms is not None else ())]
