"""Which shards of the list are this process's: told by a person, by torchrun or by SLURM."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prompt_core.errors import UserError
from prompt_core.visible import shortened

T = TypeVar("T")
FROM_ENVIRONMENT = "env"
_GIVEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Share:
    """One process of several.

    Attributes:
        index: from 0.
        count: how many share the work.
    """

    index: int
    count: int

    def of(self, items: Sequence[T]) -> list[T]:
        """Every ``count``-th item, so that each process has some from everywhere."""
        return list(items[self.index :: self.count])


def share_of_process(given: str, environment: Mapping[str, str]) -> Share | None:
    """The share of this process; None where nobody shares the work.

    torchrun's processes always share. An array of SLURM does where asked by ``env``: its tasks may as well label a
    folder each.

    Args:
        given: ``I/N`` with I from 1 to N; ``env``; or empty.
        environment: of the process.

    Raises:
        UserError: for another text, or without what ``env`` reads.
    """
    match = _GIVEN.fullmatch(given)
    if match is not None and 1 <= int(match[1]) <= int(match[2]):
        return Share(int(match[1]) - 1, int(match[2]))
    if given not in ("", FROM_ENVIRONMENT):
        raise UserError(f"I/N with I from 1 to N, such as 3/8, or env is expected, given {shortened(given)}")
    processes = _pair(environment, "RANK", "WORLD_SIZE")  # torchrun
    if not given:
        return processes
    tasks = _array(environment)
    if processes is None:
        processes = _pair(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")  # srun
    if tasks is None and processes is None:
        raise UserError("env reads the variables of torchrun, srun or an array of SLURM, and none is set; give I/N")
    outer, inner = tasks or Share(0, 1), processes or Share(0, 1)
    return Share(outer.index * inner.count + inner.index, outer.count * inner.count)


def _array(environment: Mapping[str, str]) -> Share | None:
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    first, last = _number(environment, "SLURM_ARRAY_TASK_MIN"), _number(environment, "SLURM_ARRAY_TASK_MAX")
    count, task = _number(environment, "SLURM_ARRAY_TASK_COUNT"), _number(environment, "SLURM_ARRAY_TASK_ID")
    if last - first + 1 != count:
        raise UserError(f"the array of SLURM has {count} tasks from {first} to {last}; number them without gaps")
    return _checked(task - first, count, "SLURM_ARRAY_TASK_ID")


def _pair(environment: Mapping[str, str], index: str, count: str) -> Share | None:
    if index not in environment or count not in environment:
        return None
    return _checked(_number(environment, index), _number(environment, count), index)


def _checked(index: int, count: int, variable: str) -> Share:
    if not 0 <= index < count:
        raise UserError(f"the variable {variable} is beyond the number of processes or tasks, {count}")
    return Share(index, count)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise UserError(f"the variable {name} is {shortened(text)}, a whole number is expected")
    return int(text)
