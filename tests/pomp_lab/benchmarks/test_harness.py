"""Fresh processes in turns, memory and time, spreads and targets."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pomp_lab.benchmarks import harness
from pomp_lab.benchmarks.harness import in_fresh_process, measure_memory, positives, take_turns, target
from prompt_core.errors import UserError
from prompt_core.files import read_json


def test_memory_is_what_the_work_takes() -> None:
    def take(mebibytes: int) -> int:
        return len(np.ones(mebibytes * 2**20, dtype=np.uint8))

    for mebibytes in (96, 24):  # the smaller one second: it must not be hidden by the larger one's peak
        measured = measure_memory(lambda size=mebibytes: take(size))
        # The kernel counts pages per processor and adds them up with a little slack.
        assert mebibytes - 1 < measured["extra_bytes"] / 2**20 < mebibytes + 8
        assert measured["result"] == mebibytes * 2**20
        assert measured["peak_bytes"] > measured["extra_bytes"]


def test_a_warm_call_is_the_second() -> None:
    results = iter("ab")
    assert measure_memory(lambda: next(results), warm=True)["result"] == "b"


def test_jobs_take_turns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []

    def measured(measure: Any, size: int) -> dict[str, Any]:
        calls.append(size)
        if size == 3:
            raise UserError("no memory")
        return {"seconds": len(calls) / 10, "extra_bytes": 2**20}

    monkeypatch.setattr(harness, "in_fresh_process", measured)
    jobs = {"one": (1,), "two": (2,), "three": (3,)}
    failed: dict[str, str] = {}
    results = take_turns(read_json, jobs, 2, ["seconds"], failed)
    assert calls == [1, 2, 3, 1, 2]
    assert failed == {"three": "no memory"}
    seconds = {"median": 0.35, "min": 0.2, "max": 0.5, "all": [0.2, 0.5]}
    assert results["two"] == {"seconds": seconds, "extra_bytes": 2**20}
    assert list(results) == ["one", "two"]
    assert "two, 2 of 2: 0.5 s, 1 MiB" in capsys.readouterr().err
    with pytest.raises(UserError, match="three could not be measured: no memory"):
        take_turns(read_json, jobs, 1, ["seconds"])


def test_a_process_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reading could not be measured: .*absent.json"):
        take_turns(read_json, {"reading": (tmp_path / "absent.json",)}, 1, [])
    for work, arguments, reason in (
        (os._exit, (1,), "was killed; there may be too little memory"),
        (divmod, (1, 0), "ZeroDivisionError: "),
    ):
        with pytest.raises(UserError, match=reason):
            in_fresh_process(work, *arguments)


def test_a_fresh_process_is_another_one_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_fresh_process(os.getpid) != os.getpid()
    assert in_fresh_process(print, "a line of a library") is None
    assert capfd.readouterr().out == ""


def test_bounds_belong_to_what_meets_them() -> None:
    assert target(10.0, low=10) == {"measured": 10.0, "wanted": "at least 10", "met": True}
    assert target(1.26, high=1.25) == {"measured": 1.26, "wanted": "at most 1.25", "met": False}
    assert (target(9.99, low=10)["met"], target(1.25, high=1.25)["met"]) == (False, True)


def test_numbers_of_the_command_line() -> None:
    assert positives("80,1203") == [80, 1203]
    for text in ("80,0", "80,many", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="a whole number, 1 or more"):
            positives(text)
