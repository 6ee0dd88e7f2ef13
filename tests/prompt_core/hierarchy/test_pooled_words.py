"""Words by their kinds: pooled rows, and CHiLS's answer, against the definitions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from prompt_core import TextClassifier, Vocabulary
from prompt_core.background.hypernyms import Hypernyms
from prompt_core.hierarchy.pooled_words import best_kind_scores, kinds_of_words, pooled_classifier, pooled_features

NAMES = ["animal", "dog", "terrier", "pug", "cat", "rock"]
TREE = Hypernyms.of(Vocabulary(NAMES, ids=[f"n{row}" for row in range(6)]), [[], [0], [1], [1], [0], []])


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_rows_are_the_mean_of_the_kinds() -> None:
    words, kinds, word = unit(3, 5), unit(4, 5, seed=1), torch.tensor([2, 0, 2, 2])
    pooled = pooled_features(words, kinds, word)
    expected = torch.stack([kinds[1], words[1], F.normalize(kinds[[0, 2, 3]].mean(dim=0), dim=0)])
    torch.testing.assert_close(pooled, expected, atol=1e-12, rtol=0)


def test_the_best_kind_answers_times_its_words_own_probability() -> None:
    """Algorithm 1 of the paper, one kind at a time."""
    logits, of_kinds, word = 5 * unit(6, 3), 5 * unit(6, 4, seed=1), torch.tensor([2, 0, 2, 2])
    subclasses = torch.cat([of_kinds, logits[:, 1:2]], dim=1)  # the second word has no kinds
    parents = [*word.tolist(), 1]
    probability, own = subclasses.softmax(dim=1), logits.softmax(dim=1)
    expected = torch.zeros_like(logits)
    for image in range(6):
        for place, parent in enumerate(parents):
            value = probability[image, place] * own[image, parent]
            expected[image, parent] = max(expected[image, parent], value)
    torch.testing.assert_close(best_kind_scores(logits, of_kinds, word).exp(), expected, atol=1e-12, rtol=1e-9)


def test_a_classifier_of_words_without_a_template() -> None:
    names = TextClassifier(torch.eye(6), NAMES)
    words = Vocabulary(["dog", "rock"])
    rows, word = kinds_of_words(words, torch.eye(6)[[1, 5]], Vocabulary(NAMES), torch.eye(6), TREE)
    assert (rows.tolist(), word.tolist()) == ([2, 3], [0, 0])
    built = pooled_classifier(TextClassifier(torch.eye(6)[[1, 5]], words.names), words, names, TREE)
    expected = torch.tensor([[0, 0, 0.5**0.5, 0.5**0.5, 0, 0], [0, 0, 0, 0, 0, 1]])
    torch.testing.assert_close(built.weight, expected)
    assert (built.names, built.metadata["pooled_from_kinds"]) == (["dog", "rock"], 2)
