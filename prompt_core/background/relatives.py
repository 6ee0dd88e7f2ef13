"""Which names of a background say the same as a user's word, or more or less than it, and are no answer against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
    :func:`kinds_of`.

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


def kinds_of(
    words: Vocabulary,
    negatives: Vocabulary,
    background: Vocabulary,
    word_features: Tensor,
    background_features: Tensor,
    hypernyms: Callable[[], Hypernyms],
    same_text: float = SAME_TEXT,
) -> np.ndarray:
    """For each name of a background the word that it is a kind of, (B,) int; -1 for most names.

    A name below several words is a kind of the nearest; below a negative word, of none (-2: it stays in the
    background). What is also above a word, and what says the same as one, is no kind.

    Args:
        words: N words.
        negatives: words that count against them.
        background: B names.
        word_features: (N, E) unit-norm, of the same prompt as ``background_features`` (B, E).
        hypernyms: as :func:`relatives`.
        same_text: likewise.
    """
    found = np.full(len(background), NOBODY)
    if not len(words) or not len(background):
        return found
    hierarchy = hypernyms()
    senses = [set(_senses(words, row, hierarchy)) for row in range(len(words))]
    against = [set(_senses(negatives, row, hierarchy)) for row in range(len(negatives))]
    owner = nearest_above([*senses, *against], hierarchy)
    above = hierarchy.above(row for rows in senses for row in rows)
    texts = {plain_name(name) for row in range(len(words)) for name in _names(words, row)}
    same = same_texts(word_features, background_features, same_text)
    for row, name in enumerate(background.names):
        own = set(_senses(background, row, hierarchy))
        if same[row] or not own or own & above or plain_name(name) in texts:
            continue
        owners = {int(owner[sense]) for sense in own} - {NOBODY}
        if len(owners) == 1:
            word = owners.pop()
            found[row] = word if word < len(words) else AGAINST
    return found


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
