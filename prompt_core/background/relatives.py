"""Which names of a background say the same as a user's word, or more or less than it, and are no answer against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from prompt_core.background.hypernyms import Hypernyms
from prompt_core.vocabulary import Vocabulary, plain_name

# Cosine of two names' text features from which they are one: see docs/classification.md for what was measured.
SAME_TEXT = 0.95
_ROWS = 1024  # background names compared at once


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
    lemma of ImageNet-21K's synsets has no relatives in WordNet.

    Args:
        words: N words; WordNet ids say which sense is meant.
        word_features: (N, E) unit-norm, of the same prompt as ``background_features`` (B, E).
        hypernyms: gives the hierarchy; it is asked for only where there are words and names.
        same_text: least cosine of names that are one.
    """
    if not len(words) or not len(background):
        return np.zeros(len(background), dtype=bool)
    hierarchy = hypernyms()
    texts = {plain_name(name) for row in range(len(words)) for name in _names(words, row)}
    related = hierarchy.related(row for word in range(len(words)) for row in _senses(words, word, hierarchy))
    out = [
        plain_name(background.names[row]) in texts or bool(related.intersection(_senses(background, row, hierarchy)))
        for row in range(len(background))
    ]
    return np.array(out) | same_texts(word_features, background_features, same_text)


def same_texts(word_features: Tensor, background_features: Tensor, bound: float = SAME_TEXT) -> np.ndarray:
    """Names (B,) whose feature has a cosine of at least ``bound`` with one of the words'."""
    parts = [(rows @ word_features.T).amax(dim=1) >= bound for rows in background_features.split(_ROWS)]
    return np.asarray(torch.cat(parts).numpy())


def _senses(vocabulary: Vocabulary, row: int, hierarchy: Hypernyms) -> Iterable[int]:
    """The synset that a class is by its WordNet id, else all that its names may mean."""
    for ids in (vocabulary.synsets, vocabulary.ids):
        if ids is not None and str(ids[row]) in hierarchy.row:
            return (hierarchy.row[str(ids[row])],)
    return set().union(*(hierarchy.senses_of(name) for name in _names(vocabulary, row)))


def _names(vocabulary: Vocabulary, row: int) -> list[str]:
    return [vocabulary.names[row], *(vocabulary.synonyms[row] if vocabulary.synonyms is not None else ())]
