"""Which word a name counts for: the nearest above it, no negative word's, nothing that is above a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prompt_core import TextClassifier, UserError, Vocabulary
from prompt_core.background.background import Background
from prompt_core.background.hypernyms import Hypernyms
from prompt_core.background.kinds import Kinds, nearest_above
from prompt_core.background.relatives import AGAINST, Comparison

# animal > dog > terrier > fox terrier; animal > cat; a rock beside them
NAMES = ["animal", "dog", "terrier", "fox terrier", "cat", "rock"]
TREE = Hypernyms.of(Vocabulary(NAMES, ids=[f"n{row}" for row in range(6)]), [[], [0], [1], [2], [0], []])


def found(words: list[str], negatives: tuple[str, ...] = (), same: float = 2.0) -> list[int]:
    features = torch.eye(6)
    rows = [NAMES.index(word) for word in words]
    comparison = Comparison.of(Vocabulary(words), Vocabulary(NAMES), features[rows], features, lambda: TREE, same)
    return comparison.kinds(Vocabulary(list(negatives))).tolist()


def test_the_nearest_word_above_counts() -> None:
    assert found(["dog"]) == [-1, -1, 0, 0, -1, -1]
    assert found(["dog", "terrier"]) == [-1, -1, -1, 1, -1, -1]
    assert found(["rock"]) == [-1] * 6
    # a dog is above the word terrier, and so no answer for "animal" alone
    assert found(["animal", "terrier"]) == [-1, -1, -1, 1, 0, -1]


def test_kinds_of_negative_words_stay_in_the_background() -> None:
    assert found(["dog"], ("terrier",)) == [-1, -1, AGAINST, AGAINST, -1, -1]


def test_what_says_the_same_is_no_kind() -> None:
    assert found(["dog"], same=0.0) == [-1] * 6


def test_levels_are_gone_through_from_all_words_at_once() -> None:
    owner = nearest_above([{0}, {2}], TREE)
    assert owner.tolist() == [0, 0, 1, 1, 0, -1]
    assert nearest_above([], TREE).tolist() == [-1] * 6
    assert np.array_equal(nearest_above([set()], TREE), np.full(6, -1))


def test_a_file_keeps_them(tmp_path: Path) -> None:
    rows = torch.nn.functional.normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    kinds = Kinds(rows[2:], ["Chihuahua", "tabby"], torch.tensor([1, 0]))
    background = Background(rows[1:2], ["fog"], 30.0, {}, kinds)
    built = TextClassifier(rows[:2], ["cat", "dog"], background=background)
    built.save(tmp_path / "words.safetensors")
    loaded = TextClassifier.load(tmp_path / "words.safetensors")
    photos = torch.nn.functional.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)), dim=1)
    assert torch.equal(loaded.own_share(photos), built.own_share(photos))
    assert loaded.background is not None
    assert loaded.background.notes == background.notes
    with pytest.raises(UserError, match="kinds of words 0 to 0 are expected"):
        Background.from_notes(rows[1:2], background.notes, tmp_path, kinds.weight, words=1)
