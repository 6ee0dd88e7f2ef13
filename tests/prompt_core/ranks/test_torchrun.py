"""How a process joins its job: torchrun's variables, and who may print."""

from __future__ import annotations

import sys

import pytest

from prompt_core import UserError
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.ranks.torchrun import check_torchrun, one_voice, run_in_ranks

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MASTER_PORT": None}, "variable MASTER_PORT of torchrun is missing; start the processes with torchrun"),
        ({"RANK": None}, "variable RANK of torchrun is missing"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', a whole number is expected"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1'"),
        ({"RANK": "2"}, "RANK is 2 of WORLD_SIZE 2 processes"),
    ],
)
def test_torchruns_variables_are_named(changed: dict[str, str | None], message: str) -> None:
    check_torchrun(TORCHRUN)
    given = {name: value for name, value in (TORCHRUN | changed).items() if value is not None}
    with pytest.raises(UserError, match=message):
        check_torchrun(given)


@pytest.mark.parametrize(("local", "heard"), [(None, True), ("0", True), ("1", False)])
def test_the_first_process_of_a_machine_speaks_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], local: str | None, heard: bool
) -> None:
    for name, value in (TORCHRUN | {"LOCAL_RANK": local}).items():
        if local is not None and value is not None:
            monkeypatch.setenv(name, value)
    with one_voice():
        print("help")
        print("warning", file=sys.stderr)
    out, error = capsys.readouterr()
    assert (out, error) == (("help\n", "warning\n") if heard else ("", ""))


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Ranks] = []

    def work(ranks: Ranks) -> int:
        given.append(ranks)
        return 130

    assert run_in_ranks(work, "cpu", 1.0) == 130
    assert given == [ALONE]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="variable RANK of torchrun is missing"):
        run_in_ranks(work, "cpu", 1.0)
