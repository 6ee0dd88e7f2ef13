"""Answers in a hierarchy, against sets and paths written out."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core import UserError, Vocabulary
from prompt_core.background.hypernyms import Hypernyms
from prompt_core.hierarchy.hierarchical_accuracy import hierarchical_accuracy, in_wordnet

# animal > dog > beagle, animal > cat; a lorry beside them
NAMES = ["animal", "dog", "beagle", "cat", "lorry"]
IDS = [f"n{row:08d}" for row in range(5)]
PARENTS = [[], [0], [1], [0], []]
TREE = Hypernyms.of(Vocabulary(NAMES, ids=IDS), PARENTS)


def scores(answers: list[str], labels: list[str], names: list[str] = NAMES, merge: bool = True) -> tuple[float, ...]:
    rows = ([names.index(name) for name in words] for words in (answers, labels))
    found = hierarchical_accuracy(*rows, Vocabulary(names, ids=IDS), TREE, merge)
    return found.right_or_above, found.f1, found.lca_height


def test_above_is_right_below_is_not() -> None:
    assert scores(["beagle"], ["beagle"]) == (1, 1, 0)
    # {animal, dog} against {animal, dog, beagle}: 2 in common; they meet at dog, one edge above the beagle
    assert scores(["dog"], ["beagle"]) == (1, pytest.approx(4 / 5), 1)
    assert scores(["beagle"], ["dog"]) == (0, pytest.approx(4 / 5), 1)
    assert scores(["cat"], ["beagle"]) == (0, pytest.approx(2 / 5), 2)
    # nothing in common: the root over everything is one edge above the animal, whose height is 2
    assert scores(["lorry"], ["beagle"]) == (0, 0, 3)
    # sums over images, not the mean of ratios
    assert scores(["lorry", "beagle"], ["cat", "beagle"]) == (0.5, pytest.approx(2 * 3 / (1 + 3 + 2 + 3)), 1.5)


def test_a_namesake_that_is_above_counts_where_names_are_merged() -> None:
    names = ["animal", "crane", "beagle", "cat", "crane"]  # the dog is called crane, and so is the lorry
    answers = [[4], [1]]
    merged, apart = (
        [hierarchical_accuracy(a, [2], Vocabulary(names, ids=IDS), TREE, merge) for a in answers]
        for merge in (True, False)
    )
    assert [found.right_or_above for found in merged] == [1, 1]
    assert [found.right_or_above for found in apart] == [0, 1]
    assert hierarchical_accuracy([4], [1], Vocabulary(names, ids=IDS), TREE).lca_height == 0


def test_classes_without_a_place() -> None:
    candidates = Vocabulary(["beagle", "widget", "gadget"], ids=[IDS[2], "widget", "gadget"])
    right = hierarchical_accuracy([1], [1], candidates, TREE)
    assert (right.right_or_above, right.f1, right.lca_height) == (1, 1, 0)
    wrong = hierarchical_accuracy([1, 0, 1], [2, 1, 0], candidates, TREE)
    assert (wrong.right_or_above, wrong.f1, wrong.lca_height) == (0, 0, 3)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 8), seed=st.integers(0, 999), data=st.data())
def test_equals_paths_written_out(size: int, seed: int, data: st.DataObject) -> None:
    draw = random.Random(seed)
    parents = [sorted({draw.randrange(row) for _ in range(draw.randrange(3))}) if row else [] for row in range(size)]
    ids = [f"n{row:08d}" for row in range(size)]
    vocabulary = Vocabulary([f"name {row}" for row in range(size)], ids=ids)

    def up(row: int) -> set[int]:
        return {row}.union(*(up(parent) for parent in parents[row]))

    def height(row: int) -> int:
        return max((1 + height(child) for child in range(size) if row in parents[child]), default=0)

    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, size - 1)] * 2), min_size=1, max_size=6))
    found = hierarchical_accuracy(*map(list, zip(*pairs, strict=True)), vocabulary, Hypernyms.of(vocabulary, parents))
    root = 1 + max(map(height, range(size)))
    common = [up(answer) & up(label) for answer, label in pairs]
    assert found.right_or_above == pytest.approx(sum(a in up(label) for a, label in pairs) / len(pairs))
    precision = sum(map(len, common)) / sum(len(up(answer)) for answer, _ in pairs)
    recall = sum(map(len, common)) / sum(len(up(label)) for _, label in pairs)
    expected = 2 * precision * recall / (precision + recall) if precision else 0.0
    assert found.f1 == pytest.approx(expected)
    heights = [
        0 if a == label else min(map(height, both), default=root)
        for (a, label), both in zip(pairs, common, strict=True)
    ]
    assert found.lca_height == pytest.approx(sum(heights) / len(pairs))


def test_numbers_in_wordnet_need_its_ids() -> None:
    assert in_wordnet([0], [0], Vocabulary(["cat"], ids=["cat"])) == {}
    dogs = Vocabulary(["beagle", "dog"], ids=["n02088364", "n02084071"])
    numbers = in_wordnet([1, 0], [0, 0], dogs)
    assert set(numbers) == {"right_or_above", "hierarchical_f1", "lca_height"}
    assert numbers["right_or_above"] == 100
    assert 50 < numbers["hierarchical_f1"] < 100
    assert not math.isclose(numbers["lca_height"], 0)


@pytest.mark.parametrize(("answers", "labels"), [([], []), ([], [0]), ([0], [])])
def test_an_answer_for_each_image(answers: list[int], labels: list[int]) -> None:
    with pytest.raises(UserError, match="an answer for each image is expected"):
        hierarchical_accuracy(answers, labels, Vocabulary(NAMES, ids=IDS), TREE)
