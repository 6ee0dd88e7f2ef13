"""General words: drawn above the photos' classes, and answered by the shares of their kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pomp_lab.comparisons import general_words
from pomp_lab.comparisons.general_words import ALONE, classes_below, draw_general_words, general_rows
from pomp_lab.comparisons.none_of_these import OWN, SOFTMAX, Judge
from prompt_core import Vocabulary
from prompt_core.background.hypernyms import Hypernyms, imagenet21k_hypernyms

NAMES = ["beagle", "Chihuahua", "pug", "banana", "cliff", "dog"]


def test_words_above_classes() -> None:
    tree = Hypernyms.of(Vocabulary(list("abcde"), ids=list("ABCDE")), [[], [0], [1], [1], [1]])
    found = classes_below(["C", "D", "E", "unknown"], list("abcde"), tree)
    assert found == {"a": frozenset({0, 1, 2}), "b": frozenset({0, 1, 2})}


def test_drawn_words_share_no_class() -> None:
    below = {"dog": frozenset({0, 1}), "animal": frozenset({0, 1, 2}), "fruit": frozenset({3})}
    for seed in range(9):
        drawn = draw_general_words(below, 3, np.random.default_rng(seed))
        assert sorted(drawn) in (["animal", "fruit"], ["dog", "fruit"])
    assert len(draw_general_words(below, 1, np.random.default_rng(0))) == 1


def test_a_dog_is_answered_by_its_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.eye(6)
    wide = Vocabulary(NAMES)
    judge = Judge(wide, features, "made here", 1.0)
    assert imagenet21k_hypernyms().senses_of("dog")
    monkeypatch.setattr(general_words, "GENERAL_SIZES", (2,))
    below = {"dog": frozenset({0, 1, 2}), "banana": frozenset({3})}

    def encode(words: Vocabulary) -> torch.Tensor:
        return features[[NAMES.index(name) for name in words.names]]

    photos, labels = features[[0, 1, 2, 4]], torch.tensor([0, 1, 2, 4])
    rows = {
        row["score"]: row
        for row in general_rows(judge, "photos", photos, labels, below, encode, 20.0, 0.5, seeds=(0,), draws=1)
    }
    assert rows[OWN]["precision"]["mean"] == rows[OWN]["coverage"]["mean"] == rows[OWN]["refused"]["mean"] == 100
    assert rows[ALONE]["coverage"]["mean"] == 0
    assert set(rows) == {OWN, ALONE, SOFTMAX}
