"""Words by the names of their kinds: "dog" as what 190 breeds have in common (CHiLS, arXiv 2302.02551).

A general word is seldom near to a photo, the names of its kinds are. The paper scores photos against all kinds and
answers with the word above the best one (:func:`best_kind_scores`); own shares add up all kinds
(:func:`prompt_core.background.kinds.with_kinds`). A frozen matrix has one row for each word, so there the features of
the kinds are pooled (:func:`pooled_features`): no template says what the word means.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.background.hypernyms import Hypernyms, imagenet21k_hypernyms
from prompt_core.background.relatives import Comparison
from prompt_core.classifier import TextClassifier
from prompt_core.vocabulary import Vocabulary


def kinds_of_words(
    words: Vocabulary,
    word_features: Tensor,
    names: Vocabulary,
    name_features: Tensor,
    hierarchy: Hypernyms | None = None,
) -> tuple[Tensor, Tensor]:
    """The names that are kinds of a word: their rows (K,), and the word of each (K,), as own shares count them.

    Args:
        word_features: (N, E) unit-norm.
        name_features: (B, E) unit-norm of the names that may be kinds; a name that says the same as a word is none.
        hierarchy: by default that of ImageNet-21K's synsets.
    """
    found = Comparison.of(words, names, word_features, name_features, lambda: hierarchy or imagenet21k_hypernyms())
    word = torch.from_numpy(found.kinds(Vocabulary([])))
    rows = torch.nonzero(word >= 0)[:, 0]
    return rows, word[rows]


def pooled_features(words: Tensor, kinds: Tensor, word: Tensor) -> Tensor:
    """(N, E) unit-norm: the mean of the features of each word's kinds; a word without kinds keeps its own.

    Args:
        words: (N, E) unit-norm.
        kinds: (K, E) unit-norm.
        word: (K,) the word of each kind.
    """
    sums = torch.zeros_like(words).index_add(0, word, kinds.to(words))  # (N, E)
    has_kinds = torch.bincount(word, minlength=len(words)) > 0
    return F.normalize(torch.where(has_kinds[:, None], sums, words), dim=1)


def best_kind_scores(logits: Tensor, of_kinds: Tensor, word: Tensor) -> Tensor:
    """Log-scores (batch, N) of words by CHiLS: the best kind's probability times the word's own.

    The paper's algorithm 1 with reweighting: a softmax over all kinds, in which a word without kinds stands for itself,
    each times the probability of its word in a softmax over the words; the word of the best kind is the answer.

    Args:
        logits: (batch, N) of the words.
        of_kinds: (batch, K).
        word: (K,) the word of each kind.
    """
    alone = torch.bincount(word, minlength=logits.shape[1]) == 0
    floor = logits.masked_fill(~alone, float("-inf"))  # (batch, N)
    index = word.expand(len(of_kinds), -1)
    best = floor.scatter_reduce(1, index, of_kinds, reduce="amax", include_self=True)
    total = torch.cat([floor, of_kinds], dim=1).logsumexp(dim=1, keepdim=True)
    return best - total + logits.log_softmax(dim=1)


def pooled_classifier(
    classifier: TextClassifier,
    words: Vocabulary,
    names: Vocabulary,
    encode: Callable[[Vocabulary], Tensor],
    hierarchy: Hypernyms | None = None,
) -> TextClassifier:
    """A classifier of the same words whose rows are pooled from their kinds.

    Args:
        classifier: of ``words``.
        names: that may be kinds, such as ``imagenet21k``; WordNet ids say what each means.
        encode: unit-norm features (n, E) of a vocabulary by the same CLIP, as kinds are read: without a template.
    """
    features = encode(names)
    rows, word = kinds_of_words(words, encode(words), names, features, hierarchy)
    weight = pooled_features(classifier.weight, features[rows], word)
    notes = {"kinds": names.source, "pooled_from_kinds": len(rows)}
    return TextClassifier(weight, classifier.names, classifier.metadata | notes)
