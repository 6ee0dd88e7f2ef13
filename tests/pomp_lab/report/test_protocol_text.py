"""Numbers of two protocols never share a column, whatever the word is that they differ in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pomp_lab.report.columns import Column, columns_of, ordered_columns
from pomp_lab.report.find import find_runs
from pomp_lab.report.protocol_text import OUTCOMES, differences, phrases, protocol_key
from pomp_lab.report.results import Run
from pomp_lab.report.rows import group_rows
from pomp_lab.report.tables import build_tables

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
KNOWN = ("split", "metric", "candidates", "detections", "miou_denominator", "vocabulary_sha256", "unreadable")
WORDS = (st.sampled_from(KNOWN) | st.text(max_size=8)).filter(lambda key: key not in OUTCOMES)
PROTOCOLS = st.dictionaries(WORDS, VALUES, max_size=5)
ABSENT = object()


def run_of(name: str, protocol: dict[str, Any], value: float = 1.0, metric: str = "top1") -> Run:
    return Run(name, Path(name), name, columns_of("set", protocol, {metric: value}))


def columns_of_runs(runs: list[Run]) -> list[Column]:
    return ordered_columns(column for run in runs for column in run.numbers)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PROTOCOLS, WORDS, VALUES | st.just(ABSENT))
def test_one_other_word_is_another_column(protocol: dict[str, Any], word: str, value: Any) -> None:
    other = {key: entry for key, entry in protocol.items() if key != word} | ({} if value is ABSENT else {word: value})
    same = protocol_key(protocol) == protocol_key(other)
    # The key is exact: it is the same for what JSON cannot tell apart, and for nothing else.
    if same:
        assert repr(sorted(protocol)) == repr(sorted(other))
    runs = [run_of("a", protocol, 1.0), run_of("b", other, 2.0)]
    columns, rows = columns_of_runs(runs), group_rows(runs)
    assert len(columns) == (1 if same else 2)
    for column in columns:
        held = [row.means[column].value for row in rows if column in row.means]
        assert len(held) == (2 if same else 1)
    (table,) = build_tables(rows, columns)
    if not same:
        assert len({column.difference for column in columns}) == 2, "the headings say how they differ"
        assert not any(set(table.columns) <= row.means.keys() for row in table.rows)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PROTOCOLS, min_size=1, max_size=5))
def test_headings_differ_where_protocols_do(protocols: list[dict[str, Any]]) -> None:
    texts = differences(protocols)
    for first, text in zip(protocols, texts, strict=True):
        for second, other in zip(protocols, texts, strict=True):
            assert (text == other) == (protocol_key(first) == protocol_key(second))


def test_outcomes_are_no_protocol() -> None:
    runs = [run_of("a", {"split": "val", "total_detections": 5}), run_of("b", {"split": "val", "total_detections": 6})]
    assert len(columns_of_runs(runs)) == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"split": "val"}, {"split": "test"}, ["split val", "split test"]),
        ({"candidates": 200}, {"candidates": 21844}, ["200 candidates", "21,844 candidates"]),
        (
            {"miou_denominator": "ground_truth"},
            {"miou_denominator": "union"},
            ["mIoU over classes with ground truth", "mIoU over classes with ground truth or predictions"],
        ),
        (
            {"detections": "300 of an image, over all classes"},
            {"detections": "100 of an image and class"},
            ["detections: 300 of an image, over all classes", "detections: 100 of an image and class"],
        ),
        (
            {"selection": "best checkpoint chosen on the reported images"},
            {},
            ["best checkpoint chosen on the reported images", "selection not stated"],
        ),
        (
            {"vocabulary_sha256": "a" * 64},
            {"vocabulary_sha256": "b" * 64},
            ["vocabulary sha256 " + "a" * 12, "vocabulary sha256 " + "b" * 12],
        ),
        ({"images": 5, "x_sha256": "a"}, {"images": 6, "x_sha256": "b"}, ["5 images", "6 images"]),
    ],
)
def test_differences_in_words(first: dict[str, Any], second: dict[str, Any], expected: list[str]) -> None:
    common = {"metric": "top-1", "images": 7} if "images" not in first else {}
    assert differences([{**common, **first}, {**common, **second}]) == expected


def test_words_come_in_a_fixed_order_with_hashes_last() -> None:
    words = phrases({"a_sha256": "0" * 64, "zebra": 1, "images": 1000, "split": "val", "total_detections": 3})
    assert words == ["split val", "1,000 images", "zebra 1", "a sha256 000000000000"]


def test_unstated_protocols_are_not_the_same(write_run: Callable[..., Path]) -> None:
    runs = find_runs([write_run("a", {"set/top1": 1.0}), write_run("b", {"set/top1": 2.0}, {"set": {}})]).runs
    assert [column.difference for column in columns_of_runs(runs)] == [
        "protocol not stated by a",
        "protocol not stated by b",
    ]
