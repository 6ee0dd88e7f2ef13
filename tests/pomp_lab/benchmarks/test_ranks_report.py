"""What several processes gain on paper: the parts of a step, and the limits of the formula."""

from __future__ import annotations

import pytest

from pomp_lab.benchmarks.ranks_report import Machines, check_speed, distinct_names, estimates, step_seconds

MACHINES = Machines("made up", seconds_per_token=0.001, fixed=0.1, bandwidth=1e9, latency=1e-5, source="made up")


def test_a_step_is_text_and_what_is_not_shared_and_what_is_sent() -> None:
    alone = step_seconds(MACHINES, 1, 4000, 1000)
    assert (alone["text"], alone["transfer"]) == (4.0, 0.0)
    assert alone["all"] == pytest.approx(4.1)
    four = step_seconds(MACHINES, 4, 4000, 1000)
    sent = 0.75 * 4 * (3 * 1000 * 512 + 2 * 512 * 16)
    assert four["all"] == pytest.approx(1.0 + 0.1 + sent / 1e9 + 4 * 2 * 1e-5)


def test_draws_of_each_rank_overlap_more_the_more_there_are() -> None:
    assert distinct_names(1, 1000, 21843) == pytest.approx(1000)
    assert distinct_names(64, 1000, 21843) == pytest.approx(21843 * (1 - (20843 / 21843) ** 64))
    rows = {(row["ranks"], row["step"]): row for row in estimates([MACHINES], 4000, 1000, 21843, (1, 8, 64))}
    assert rows[1, "one draw"]["speed_up"] == 1
    assert 1 < rows[8, "one draw"]["speed_up"] < rows[64, "one draw"]["speed_up"] < 64
    assert rows[8, "full softmax"]["speed_up"] > rows[8, "one draw"]["speed_up"]
    # Each rank encodes its own 1,000 names in the published way.
    assert rows[64, "a draw each"]["names_of_a_rank"] == pytest.approx(324.3, abs=0.1)
    assert rows[64, "a draw each"]["text_spared"] == pytest.approx(1000 / 324.3, rel=1e-3)


def test_transfers_alone_have_no_speed_to_reach() -> None:
    ratios = {"ratios": {"2": {"speed_up": 1.9, "processor_ratio": 1.7}}}
    parts = {"step": {**ratios, "settings": {"work": "step"}}, "sent": {**ratios, "settings": {"work": "reductions"}}}
    assert [(row["part"], row["value"], row["met"]) for row in check_speed(parts)] == [
        ("step", "speed_up", True),
        ("step", "processor_ratio", False),
    ]
