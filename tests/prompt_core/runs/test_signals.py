"""Signals that ask a run to end."""

from __future__ import annotations

import signal

import pytest

from prompt_core.command_line import asked_to_stop
from prompt_core.errors import run_command

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", ALL)
def test_a_loop_is_asked_and_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in ALL]
    with asked_to_stop() as asked:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert asked == [number, signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(each) for each in ALL] == before


@pytest.mark.parametrize("number", ALL)
def test_a_command_ends_like_ctrl_c(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    tidied = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            tidied.append(True)

    with pytest.raises(SystemExit) as stop:
        run_command(work)
    assert (stop.value.code, tidied, capsys.readouterr().err) == (130, [True], "interrupted\n")


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asked_to_stop() as asked:
            signal.raise_signal(signal.SIGHUP)
        assert asked == []
    finally:
        signal.signal(signal.SIGHUP, before)
