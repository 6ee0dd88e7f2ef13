"""Settings have ranges: a number that makes no sense is refused before anything runs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core.config import correction_of, default_config, flatten, load_config, merge_settings
from prompt_core.errors import UserError
from prompt_core.ranges import LARGEST, PROMPT_RANGES, Range, check_ranges, table

from ..support.setting_ranges import accepted, assert_sound, keys_without_range, numeric_keys, refusal, refuses

KEYS = numeric_keys(default_config())


def test_every_number_has_a_range_and_every_range_a_setting() -> None:
    assert keys_without_range(default_config(), PROMPT_RANGES, refused=()) == []
    assert sorted(PROMPT_RANGES.keys() - dict(flatten(default_config())).keys()) == []


def test_hostile_numbers() -> None:
    taken = accepted(default_config(), PROMPT_RANGES)
    assert_sound(taken)
    assert all(0 not in taken[key] for key in ("OPTIM.EPOCHS", "OPTIM.BATCH", "PROMPT.N_CTX", "AUGMENT.VIEWS"))
    assert taken["OPTIM.MOMENTUM"] == [0.0, 1.0, 0.5]
    assert taken["DATA.WORKERS"] == [-1, 0, 1]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("OPTIM.BATCH", -3, "is -3; expected 1 or more"),
        ("OPTIM.EPOCHS", 0, "expected 1 or more"),
        ("OPTIM.LR", -0.1, "expected 0 or more"),
        ("OPTIM.LR", "nan", "is not a number; expected 0 or more"),
        ("OPTIM.LR", "inf", "is infinite; expected"),
        ("OPTIM.MOMENTUM", 1.5, "expected 0 to 1"),
        ("PROMPT.N_CTX", 0, "expected 1 or more"),
        ("SEED", 10**22, f"expected 0 to {2**32 - 1}"),
        ("SEED", -1, "expected 0 to"),
        ("LOSS.CHUNK", -1, "expected 0 or more"),
        ("LOSS.ANCHOR", -1.0, "expected 0 or more"),
        ("LOSS.ANCHOR", "inf", "is infinite; expected"),
        ("LOSS.ANCHOR_NAMES", 0, "expected 1 or more"),
        ("LOSS.ANCHOR_VOCABULARY", "", "expected a text that is not empty"),
        ("LOSS.NUM_CLASSES", 1, "expected 0, or 2 or more"),
        ("AUGMENT.VIEWS", 0, "expected 1 or more"),
        ("AUGMENT.SCALE", (0.0, 1.0), "2 numbers are expected, each above 0 to 1"),
        ("AUGMENT.SCALE", (0.5,), "2 numbers are expected"),
        ("DATA.SHOTS", 0, "expected -1, or 1 or more"),
        ("DATA.WORKERS", -2, "expected -1 or more"),
        ("DATA.CACHE", "", "expected a text that is not empty"),
        ("MODEL.NAME", " ", "expected a text that is not empty"),
    ],
)
def test_refused(key: str, value: Any, expected: str) -> None:
    refuses(load_config, key, value, expected)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_corrections_are_finite(text: str) -> None:
    with pytest.raises(UserError, match="expected log10, ln, a number or none"):
        correction_of(load_config(None, ["LOSS.CORRECTION", text]))


anything = st.one_of(
    st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers() | st.floats(), max_size=3), st.none()
)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from(KEYS), value=anything)
def test_any_value_is_in_its_range_or_refused_by_name(key: str, value: Any) -> None:
    cfg = default_config()

    def put() -> None:
        merge_settings(cfg, [(key, value)], "a test")
        check_ranges(cfg, PROMPT_RANGES)

    reason = refusal(put)
    if reason is None:
        assert PROMPT_RANGES[key].holds(dict(flatten(cfg))[key])
    else:
        assert reason.startswith(f"{key} is ")
        assert len(reason.splitlines()) == 1


@given(value=st.floats() | st.integers())
def test_ranges_are_what_they_say(value: float) -> None:
    assert Range(0, 1).holds(value) == (0 <= value <= 1)
    assert Range(0, 1, above=True, below=True).holds(value) == (0 < value < 1)
    assert Range(1, also=-1).holds(value) == (value == -1 or 1 <= value <= LARGEST)
    assert Range().holds(value) == (math.isfinite(value) and abs(value) <= LARGEST)
    assert Range(0).holds([[value], []]) == Range(0).holds(value)
    assert not Range(length=2).holds(value)


def test_texts_of_ranges() -> None:
    assert str(Range(1)) == f"1 or more, at most {LARGEST}"
    assert str(Range(0, above=True)) == f"above 0, at most {LARGEST}"
    assert str(Range(0, 0.5, above=True, below=True)) == "above 0 to below 0.5"
    assert table({Range(1): "A B", Range(2): "C"}) == {"A": Range(1), "B": Range(1), "C": Range(2)}
