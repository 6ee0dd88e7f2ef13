"""Few-shot subsets depend on the keys of a class, the seed and the number of shots, and on nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_core.data.images import ImageSet
from prompt_core.data.splits import few_shot
from prompt_core.errors import UserError

COUNTS = {"n01": 40, "n02": 7, "n03": 16, "n04": 25}


def make_set(counts: dict[str, int], order_seed: int | None = None) -> ImageSet:
    ids = list(counts)
    rows = [(label, f"{name}/{number}.jpg") for label, name in enumerate(ids) for number in range(counts[name])]
    if order_seed is not None:
        random.Random(order_seed).shuffle(rows)
    labels = np.array([label for label, _ in rows], dtype=np.int64)
    return ImageSet(ids, ids, labels, [key for _, key in rows], "test", Path())


def keys_of(images: ImageSet, class_id: str) -> list[str]:
    return [key for key in images.keys if key.startswith(class_id + "/")]


def test_counts_and_labels() -> None:
    subset = few_shot(make_set(COUNTS), 16, seed=1)
    assert np.bincount(subset.labels).tolist() == [16, 7, 16, 16]
    assert all(subset.ids[label] == key.split("/")[0] for label, key in zip(subset.labels, subset.keys, strict=True))
    assert len(set(subset.keys)) == len(subset)


@given(order=st.integers(0, 10_000), shots=st.sampled_from([-1, 1, 4, 16]), seed=st.integers(-3, 2**40))
def test_listing_order_does_not_matter(order: int, shots: int, seed: int) -> None:
    expected, actual = few_shot(make_set(COUNTS), shots, seed), few_shot(make_set(COUNTS, order), shots, seed)
    assert actual.keys == expected.keys
    assert actual.labels.tolist() == expected.labels.tolist()


def test_one_class_does_not_depend_on_the_others() -> None:
    everything = few_shot(make_set(COUNTS), 4, seed=5)
    alone = few_shot(make_set({"n04": 25}), 4, seed=5)
    assert keys_of(everything, "n04") == alone.keys


@given(seed=st.integers(0, 1000), small=st.integers(1, 20), more=st.integers(0, 20))
def test_fewer_shots_are_part_of_more(seed: int, small: int, more: int) -> None:
    images = make_set(COUNTS)
    assert set(few_shot(images, small, seed).keys) <= set(few_shot(images, small + more, seed).keys)


def test_minus_one_keeps_everything() -> None:
    images = make_set(COUNTS, order_seed=3)
    assert sorted(few_shot(images, -1, seed=0).keys) == sorted(images.keys)


def test_seeds_choose_differently_and_evenly() -> None:
    images = make_set({"n01": 40})
    chosen = [key for seed in range(400) for key in few_shot(images, 10, seed).keys]
    counts = np.array([chosen.count(key) for key in images.keys])
    # each of 40 photos is expected 100 times, standard deviation sqrt(400 * 1/4 * 3/4) = 8.7; five of them allowed
    assert abs(counts - 100).max() < 44
    assert few_shot(images, 10, 0).keys != few_shot(images, 10, 1).keys


def test_global_random_state_is_neither_used_nor_touched() -> None:
    images = make_set(COUNTS)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the legacy state is what must stay untouched
    first = few_shot(images, 4, 0)
    drawn = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert drawn == (random.random(), np.random.rand())  # noqa: NPY002
    assert few_shot(images, 4, 0).keys == first.keys


def test_the_choice_is_pinned() -> None:
    # a change here changes every few-shot subset that anyone has used; Python's own hash differs in each run
    keys = [f"n01/{number}.jpg" for number in range(40)]
    images = ImageSet(["a"], ["n01"], np.zeros(40), keys, "test", Path())
    assert few_shot(images, 3, 42).keys == ["n01/17.jpg", "n01/30.jpg", "n01/35.jpg"]


@pytest.mark.parametrize("shots", [0, -2])
def test_bad_shots(shots: int) -> None:
    with pytest.raises(UserError, match=f"shots = {shots}"):
        few_shot(make_set(COUNTS), shots, 0)
