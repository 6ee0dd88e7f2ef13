"""Intervals of shares and of differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomp.learning.before_after import BeforeAfter, gain_interval, wilson


def test_wilson_is_that_of_the_textbook() -> None:
    # 8 of 10: (0.4901, 0.9433), Newcombe 1998, table I.
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500), st.data())
def test_a_share_is_inside_its_interval(count: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, count))
    low, high = wilson(right, count)
    assert 0 <= low <= right / count + 1e-12
    assert right / count - 1e-12 <= high <= 1
    assert high - low > 0


def test_boxes_of_one_photo_are_no_evidence_of_their_own() -> None:
    """Sixty images, half of them better: sure if they are of 60 photos, not if they are of two."""
    before, after = np.zeros(60, dtype=bool), np.arange(60) < 30
    each = gain_interval(before, after, np.arange(60))
    two = gain_interval(before, after, (np.arange(60) >= 30).astype(int))
    assert 0.3 < each[0] < 0.5 < each[1] < 0.7
    assert two == (0.0, 1.0)


def test_verdicts() -> None:
    photos, better = np.arange(40), np.arange(40) < 20
    nothing = np.zeros(40, dtype=bool)
    assert BeforeAfter("words", nothing, better, photos, "").verdict == "better"
    assert BeforeAfter("words", better, nothing, photos, "").verdict == "worse"
    one = BeforeAfter("words", better, np.roll(better, 1), photos, "")
    assert one.verdict == "no difference that shows"
    numbers = one.describe()
    assert numbers["before"] == numbers["after"] == 50
    assert numbers["gain_interval"][0] < 0 < numbers["gain_interval"][1]
