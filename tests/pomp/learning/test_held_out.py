"""What is held out, and what a prompt is then worth."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pomp.learning.held_out import folds, word_halves
from pomp.learning.learn_prompt import FEWEST, parts

photos = st.lists(st.integers(0, 40), min_size=1, max_size=80).map(np.array)


@given(photos, st.sampled_from([0.1, 0.3, 0.5]), st.integers(0, 5))
def test_a_photo_is_in_one_fold(photo: np.ndarray, share: float, seed: int) -> None:
    fold = folds(photo, share, seed)
    if len(np.unique(photo)) < 10:
        assert fold is None
        return
    assert fold is not None
    for one in np.unique(photo):
        assert len(np.unique(fold[photo == one])) == 1
    sizes = [len(np.unique(photo[fold == number])) for number in range(round(1 / share))]
    assert max(sizes) - min(sizes) <= 1


@given(photos, st.integers(0, 5))
def test_photos_that_choose_are_not_learned_on(photo: np.ndarray, seed: int) -> None:
    learning, choosing = parts(photo, seed)
    assert sorted([*learning.tolist(), *choosing.tolist()]) == list(range(len(photo)))
    assert not set(photo[learning].tolist()) & set(photo[choosing].tolist())
    assert (len(choosing) > 0) == (len(np.unique(photo)) >= FEWEST)


def test_halves_of_words_have_about_as_many_examples() -> None:
    labels = np.repeat(np.arange(6), [50, 20, 20, 5, 3, 2])
    halves = word_halves(labels, 0)
    assert all(len(np.unique(halves[labels == word])) == 1 for word in range(6))
    assert abs(int((halves == 0).sum()) - int((halves == 1).sum())) <= 2
