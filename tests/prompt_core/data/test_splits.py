"""Drawn splits: disjoint, covering, in proportion, the same for the same seed; and names after the rules of CoOp."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_core.data.catalog.lookup import classification_entry
from prompt_core.data.readers.original_folders import caltech101_name, sun397_name
from prompt_core.data.readers.original_lists import oxford_pets_name, stanford_cars_name, ucf101_name
from prompt_core.data.splits import Row, draw_parts, part_sizes
from prompt_core.errors import UserError

THREE, TWO = (0.5, 0.2, 0.3), (0.8, 0.2)


def rows_of(counts: list[int]) -> list[Row]:
    return [
        (f"c{label}/{number}.jpg", label, f"c{label}") for label, count in enumerate(counts) for number in range(count)
    ]


@given(
    counts=st.lists(st.integers(3, 60), min_size=1, max_size=8),
    fractions=st.sampled_from([THREE, TWO]),
    seed=st.integers(0, 2**31),
    order=st.randoms(use_true_random=False),
)
def test_drawn_parts_divide_every_class(
    counts: list[int], fractions: tuple[float, ...], seed: int, order: random.Random
) -> None:
    rows = rows_of(counts)
    shuffled = list(rows)
    order.shuffle(shuffled)
    parts = draw_parts(shuffled, fractions, seed)
    assert parts == draw_parts(rows, fractions, seed), "the order of listing does not matter"
    together = [row for part in parts for row in part]
    assert sorted(together) == sorted(rows), "disjoint and covering"
    for label, count in enumerate(counts):
        sizes = [sum(row[1] == label for row in part) for part in parts]
        assert all(sizes)
        assert all(abs(size - count * fraction) <= 1.0 for size, fraction in zip(sizes, fractions, strict=True))


@given(count=st.integers(3, 400), others=st.integers(3, 40), seed=st.integers(0, 1000))
def test_a_class_is_drawn_by_itself(count: int, others: int, seed: int) -> None:
    alone = draw_parts(rows_of([count]), THREE, seed)
    among = draw_parts(rows_of([count, others]), THREE, seed)
    assert alone == [[row for row in part if row[1] == 0] for part in among]


def test_another_seed_draws_others() -> None:
    rows = rows_of([40])
    assert draw_parts(rows, THREE, 1) != draw_parts(rows, THREE, 2)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("dtd", [120] * 47),
        ("food101", [1_000] * 101),
        ("eurosat", [3_000, 3_000, 3_000, 2_500, 2_500, 2_000, 2_500, 3_000, 2_500, 3_000]),
    ],
)
def test_sizes_are_those_of_the_published_splits(name: str, counts: list[int]) -> None:
    entry = classification_entry(name)
    test = [part_sizes(count, THREE)[2] for count in counts]
    assert sum(test) == entry.test.number
    assert entry.base_test is not None
    assert sum(test[: (len(test) + 1) // 2]) == entry.base_test.number


def test_too_few_photos_are_named() -> None:
    assert part_sizes(3, THREE) == [1, 1, 1]
    assert part_sizes(2, TWO) == [1, 1]
    with pytest.raises(UserError, match="class 'c1': 2 photos cannot be split into 3 parts"):
        draw_parts(rows_of([9, 2]), THREE, 1)


def test_names_follow_the_rules() -> None:
    assert caltech101_name("airplanes") == "airplane"
    assert caltech101_name("Faces_easy") is caltech101_name("BACKGROUND_Google") is None
    assert caltech101_name("wild_cat") == "wild_cat"
    assert ucf101_name("ApplyEyeMakeup") == "Apply_Eye_Makeup"
    assert ucf101_name("Archery") == "Archery"
    assert stanford_cars_name("Audi TTS Coupe 2012") == "2012 Audi TTS Coupe"
    assert oxford_pets_name("american_bulldog_100") == "american_bulldog"
    assert oxford_pets_name("Egyptian_Mau_1") == "egyptian_mau"
    assert sun397_name("/a/abbey") == "abbey"
    assert sun397_name("/a/apartment_building/outdoor") == "outdoor apartment_building"
