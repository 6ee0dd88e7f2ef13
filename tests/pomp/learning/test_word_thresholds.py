"""Thresholds from answers, their file, and how answers are matched with corrected boxes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pomp.learning.confused_words import confused_words
from pomp.learning.scored_answers import box_overlaps, confusions, matched_boxes
from pomp.learning.word_thresholds import FEWEST, WordThresholds, choose_threshold
from prompt_core import TextClassifier, UserError
from prompt_core.background.background import Background
from prompt_core.background.photo_words import photo_words

answers = st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=0, max_size=60)


def test_the_lowest_threshold_that_reaches_the_precision() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    right = np.array([True, True, True, True, True, False, False, True])
    chosen = choose_threshold(scores, right, 7, 0.8, 0.5)
    assert chosen.status == "reached"
    assert chosen.threshold == pytest.approx(0.35)  # five of six
    assert (chosen.right, chosen.answers, chosen.known) == (5, 6, 7)
    assert chosen.interval[0] < 5 / 6 < chosen.interval[1]
    whole = choose_threshold(scores, right, 7, 1.0, 0.5)
    assert whole.threshold == pytest.approx(0.45)
    # Five of five do not prove 80 %: their interval begins at 57 %.
    assert choose_threshold(scores, right, 7, 0.8, 0.5, sure=True).status == "not reached"
    assert choose_threshold(scores[:4], right[:4], 4, 0.8, 0.5).status == "too few answers"
    assert choose_threshold(scores[:4], right[:4], 4, 0.8, 0.5).threshold == 0.5


@given(answers, st.sampled_from([0.5, 0.8, 0.95]))
def test_what_is_reached_is_reached(pairs: list[tuple[int, bool]], precision: float) -> None:
    scores, right = np.array([score / 20 for score, _ in pairs]), np.array([hit for _, hit in pairs], dtype=bool)
    chosen = choose_threshold(scores, right, 0, precision, 0.3)
    taken = scores > chosen.threshold
    if chosen.status == "reached":
        assert taken.sum() >= FEWEST
        assert right[taken].mean() >= precision
        for lower in np.unique(scores[scores <= chosen.threshold]):
            assert right[scores >= lower].mean() < precision
    elif len(scores) >= FEWEST:
        assert all(right[scores >= bound].mean() < precision for bound in scores if (scores >= bound).sum() >= FEWEST)
    assert 0 <= chosen.threshold <= 1


def test_boxes_are_found_once(tmp_path: Path) -> None:
    found = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [50, 50, 60, 60]])
    true = np.array([[0.0, 0, 10, 10], [20, 20, 10, 10]])
    overlaps = box_overlaps(found, true)
    np.testing.assert_allclose(overlaps, [[1, 0], [0.9, 0], [0, 1], [0, 0]])
    labels, scores, words = np.array([0, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0])
    answers = matched_boxes(labels, scores, words, overlaps)
    assert [right for *_, right in answers] == [True, False, False, False]
    assert confusions(labels, scores, words, overlaps) == [(0, 1)]
    assert confusions(labels[:0], scores[:0], words, overlaps[:0]) == []


def test_words_are_confused_by_answers_or_by_text() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(4, 16, generator=generator), dim=1)
    rows[1] = F.normalize(rows[0] + 0.2 * rows[2], dim=0)
    classifier = TextClassifier(rows, ["cup", "mug", "sky", "dog"])
    others = F.normalize(torch.randn(200, 16, generator=generator), dim=1)
    classifier.background = Background(others, [f"name {row}" for row in range(200)], 30.0)
    pairs = confused_words(classifier, Counter({(2, 3): 2, (3, 2): 1, (0, 2): 1}), np.array([5, 5, 4, 6]))
    assert [pair["words"] for pair in pairs] == [["sky", "dog"], ["cup", "mug"]]
    assert (pairs[0]["wrong"], pairs[0]["of"], pairs[0]["near"]) == (3, 10, False)
    assert pairs[1]["near"]
    assert pairs[1]["cosine"] > 0.9


def test_the_file_comes_back_and_is_checked(tmp_path: Path) -> None:
    chosen = choose_threshold(np.linspace(0.4, 0.9, 8), np.ones(8, bool), 8, 0.9, 0.3)
    thresholds = WordThresholds("detect", 0.9, 0.3, {"Fire_Hydrant": chosen}, [], {"photos": 8})
    path = tmp_path / "thresholds.json"
    thresholds.save(path)
    again = WordThresholds.load(path, "detect")
    assert again == thresholds
    assert again.of(["dog", "fire hydrant"]) == [0.3, chosen.threshold]
    with pytest.raises(UserError, match="has thresholds to detect, and they are used to classify"):
        WordThresholds.load(path, "classify")
    path.write_text(path.read_text().replace('"default": 0.3', '"default": 3'))
    with pytest.raises(UserError, match="a threshold is outside 0 to 1"):
        WordThresholds.load(path)


def test_a_photo_gets_a_word_by_the_words_own_threshold() -> None:
    shares = torch.tensor([[0.6, 0.3], [0.2, 0.35]])
    assert [answer.word for answer in photo_words(shares, ["cup", "dog"])] == ["cup", None]
    assert [answer.word for answer in photo_words(shares, ["cup", "dog"], [0.7, 0.3])] == [None, "dog"]
