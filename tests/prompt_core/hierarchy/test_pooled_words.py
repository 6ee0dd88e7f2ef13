"""Words by their kinds: pooled rows, and CHiLS's answer, against the definitions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from prompt_core import TextClassifier, Vocabulary
from prompt_core.background.hypernyms import Hypernyms
from prompt_core.hierarchy.pooled_words import best_kind_scores, pooled_classifier, pooled_features

NAMES = ["animal", "dog", "terrier", "pug", "cat", "rock"]


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
    # two synsets are called "pug": a dog, and a rock that no one would take for one
    names = Vocabulary([*NAMES, "pug"], ids=[f"n{row}" for row in range(7)])
    tree = Hypernyms.of(names, [[], [0], [1], [1], [0], [], [5]])
    features = torch.eye(7)

    def encode(of: Vocabulary) -> torch.Tensor:
        return features if of is names else features[[names.names.index(name) for name in of.names]]

    words = Vocabulary(["dog", "rock", "cat"])
    built = pooled_classifier(TextClassifier(features[[0, 1, 4]], words.names), words, names, encode, tree)
    expected = torch.zeros(3, 7)
    expected[0, [2, 3]], expected[1, 6], expected[2, 4] = 0.5**0.5, 1, 1
    torch.testing.assert_close(built.weight, expected)
    assert (built.names, built.metadata["pooled_from_kinds"]) == (words.names, 3)
