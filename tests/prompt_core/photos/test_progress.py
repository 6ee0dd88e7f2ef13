"""How far a loop is, told to a log."""

from __future__ import annotations

import pytest

from prompt_core.photos import progress
from prompt_core.photos.progress import plain_line, showing_progress


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (120, 1000, 29.3, "120 of 1,000 photos, 4.1 per second, 3 min 35 s left"),
        (1, 2, 5.0, "1 of 2 photos, 0.2 per second, 5 s left"),
        (100, 200_100, 10.0, "100 of 200,100 photos, 10.0 per second, 5 h 33 min left"),
    ],
)
def test_rate_and_remaining_time(done: int, total: int, seconds: float, line: str) -> None:
    assert plain_line(done, total, seconds) == line


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with showing_progress("detect", every=30.0) as told:
        for done in range(1, 101):
            clock[0] += 1.0
            told(done, 100)
    assert capsys.readouterr().err.splitlines() == [
        "30 of 100 photos, 1.0 per second, 1 min 10 s left",
        "60 of 100 photos, 1.0 per second, 40 s left",
        "90 of 100 photos, 1.0 per second, 10 s left",
    ]
