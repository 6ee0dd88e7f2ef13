"""A rank is one of the processes of a job. Here: one process alone, for which nothing is shared out.

Code that several processes may run calls these operations, and need not know how many there are. All ranks must call
them in the same order. With several it is :class:`prompt_core.ranks.process_ranks.ProcessRanks` that does something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor, nn

from prompt_core.errors import UserError

T = TypeVar("T")


class Ranks:
    """One process alone; every operation gives back what it is given.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress for all."""
        return self.rank == 0

    def gather_rows(self, part: Tensor, places: Sequence[Tensor]) -> Tensor:
        """All rows (n, ...), from the rows (n_r, ...) of each rank; differentiable where ``part`` is.

        The gradient of a rank's rows is the sum of what all ranks make of them.

        Args:
            part: the rows of this rank; it needs a gradient on all ranks or on none.
            places: for each rank the places (n_r,) of its rows among all, on the CPU; together each place once.
        """
        return part

    def add(self, values: Tensor) -> Tensor:
        """The sum over ranks, on each; differentiable: the gradients of all ranks are summed too."""
        return values

    def largest(self, values: Tensor) -> Tensor:
        """The largest over ranks of each value; without a gradient."""
        return values

    def smallest(self, values: Tensor) -> Tensor:
        """The smallest over ranks of each value; without a gradient."""
        return values

    def sum_gradients(self, parameters: Sequence[nn.Parameter], *numbers: Tensor) -> tuple[Tensor, ...]:
        """Sum the gradients over ranks, in place, and some numbers (scalars), in one transfer; returns the numbers.

        A parameter that has no gradient on any rank keeps none.
        """
        return numbers

    def any(self, flag: bool) -> bool:
        """Whether it is true on some rank."""
        return flag

    def everyone(self, value: T) -> list[T]:
        """The values of all ranks, on each."""
        return [value]

    def collect(self, value: T) -> list[T]:
        """The values of all ranks on the one that leads; nothing elsewhere."""
        return [value]

    def from_leader(self, value: T) -> T:
        """The value of the rank that leads, on each."""
        return value

    def wait(self) -> None:
        """Wait until all ranks are here."""


ALONE = Ranks()


def check_same(ranks: Ranks, **facts: object) -> None:
    """Check that all ranks found the same: another file on another machine would be learned from without a word.

    Args:
        facts: what it is, as a name for the message, and plain values.

    Raises:
        UserError: on all ranks, naming what differs.
    """
    of_all = ranks.everyone(facts)
    different = [name for name in facts if any(other[name] != of_all[0][name] for other in of_all)]
    if different:
        raise UserError(
            f"the {ranks.size} processes of this job do not have the same {' and '.join(different)}; give them the "
            "same files (random weights differ from process to process)"
        )
