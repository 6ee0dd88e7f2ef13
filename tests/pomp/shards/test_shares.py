"""Every shard has one process, however processes are started."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomp.shards.shares import Share, share_of_process
from prompt_core.errors import UserError

ARRAY = {f"SLURM_ARRAY_TASK_{name}": value for name, value in (("MIN", "3"), ("MAX", "6"), ("COUNT", "4"))}


@given(items=st.integers(0, 50), count=st.integers(1, 12))
def test_shares_are_all_and_none_twice(items: int, count: int) -> None:
    shares = [Share(index, count).of(range(items)) for index in range(count)]
    assert sorted(item for share in shares for item in share) == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_who_says_which() -> None:
    torchrun = {"RANK": "1", "WORLD_SIZE": "2"}
    assert share_of_process("3/8", torchrun) == Share(2, 8)
    assert share_of_process("", torchrun) == Share(1, 2)
    assert share_of_process("", {}) is None
    # an array may as well have a folder for each task
    assert share_of_process("", ARRAY | {"SLURM_ARRAY_TASK_ID": "4"}) is None
    assert share_of_process("env", ARRAY | {"SLURM_ARRAY_TASK_ID": "4"}) == Share(1, 4)
    assert share_of_process("env", ARRAY | {"SLURM_ARRAY_TASK_ID": "4"} | torchrun) == Share(3, 8)
    srun = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "5", "SLURM_NTASKS": "5"}
    assert share_of_process("env", srun) == Share(2, 5)
    assert share_of_process("env", srun | torchrun) == Share(1, 2)


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("0/4", {}, "I from 1 to N, such as 3/8, or env is expected, given '0/4'"),
        ("5/4", {}, "given '5/4'"),
        ("2", {}, "given '2'"),
        ("env", {}, "none is set; give I/N"),
        ("env", {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "none is set"),  # of a batch script: nobody else is there
        ("", {"RANK": "two", "WORLD_SIZE": "4"}, "RANK is 'two', a whole number"),
        ("", {"RANK": "4", "WORLD_SIZE": "4"}, "RANK is beyond the number of processes or tasks, 4"),
        ("env", ARRAY | {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_MAX": "9"}, "number them without gaps"),
    ],
)
def test_what_cannot_be_shared(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        share_of_process(text, environment)
