"""Several processes as one job, by torch.distributed: gloo for what is on the CPU, NCCL for what is on GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from prompt_core.errors import UserError
from prompt_core.ranks.ranks import Ranks

T = TypeVar("T")


class LostRank(UserError):
    """Another process of the job does not answer any more."""


class ProcessRanks(Ranks):
    """The ranks of torch.distributed's default process group, which must stand.

    Raises:
        LostRank: by every operation, when another process has died, or has not answered for the timeout of the group.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather_rows(self, part: Tensor, places: Sequence[Tensor]) -> Tensor:
        rows: Tensor = _GatherRows.apply(part, self, places)
        return rows

    def add(self, values: Tensor) -> Tensor:
        total: Tensor = _Add.apply(values, self)
        return total

    def largest(self, values: Tensor) -> Tensor:
        return self.reduced(values, dist.ReduceOp.MAX)

    def smallest(self, values: Tensor) -> Tensor:
        return self.reduced(values, dist.ReduceOp.MIN)

    def sum_gradients(self, parameters: Sequence[nn.Parameter], *numbers: Tensor) -> tuple[Tensor, ...]:
        given = [parameter.grad for parameter in parameters]
        gradients = [
            (torch.zeros_like(parameter) if gradient is None else gradient).reshape(-1)
            for parameter, gradient in zip(parameters, given, strict=True)
        ]
        sizes = [len(gradient) for gradient in gradients]
        # Behind the gradients: on how many ranks each parameter has one, so that none is made where there is none.
        counts = gradients[0].new_tensor([gradient is not None for gradient in given])
        parts = [*gradients, counts, *(number.detach().reshape(1).to(gradients[0]) for number in numbers)]
        flat = self.reduced(torch.cat(parts), dist.ReduceOp.SUM)
        *summed, counts, tail = flat.split([*sizes, len(parameters), len(numbers)])
        for place, (parameter, gradient, total) in enumerate(zip(parameters, given, summed, strict=True)):
            if gradient is not None or float(counts[place]) > 0:
                parameter.grad = total.view_as(parameter).to(parameter)
        return tail.unbind()

    def any(self, flag: bool) -> bool:
        return bool(self.reduced(torch.tensor(int(flag)), dist.ReduceOp.MAX))

    def everyone(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        self.call(dist.all_gather_object, values, value)
        return values

    def collect(self, value: T) -> list[T]:
        values: list[Any] | None = [None] * self.size if self.leads else None
        self.call(dist.gather_object, value, values)
        return values or []

    def from_leader(self, value: T) -> T:
        values: list[Any] = [value]
        self.call(dist.broadcast_object_list, values)
        given: T = values[0]
        return given

    def wait(self) -> None:
        self.any(False)  # on the CPU, whatever else the group has

    def reduced(self, values: Tensor, operation: Any) -> Tensor:
        """A reduction over ranks, without a gradient."""
        total = values.detach().clone(memory_format=torch.contiguous_format)
        self.call(dist.all_reduce, total, operation)
        return total

    def call(self, operation: Callable[..., Any], *arguments: Any) -> None:
        """Run a collective operation; what goes wrong in it is another process that is gone."""
        try:
            operation(*arguments)
        except RuntimeError as error:  # torch.distributed's own are of this kind
            late = "timed out" in str(error).lower()
            raise LostRank(
                f"another of the {self.size} processes of this job "
                + ("gave no answer in RANKS.TIMEOUT_MINUTES" if late else "has died, or its machine")
                + ", so all stop; start the same command again, a training with --resume"
            ) from error


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: ProcessRanks, places: Sequence[Tensor]) -> Tensor:
        ctx.ranks, ctx.own = ranks, places[ranks.rank].to(part.device)
        most = max(len(place) for place in places)
        padded = part.new_zeros(most, *part.shape[1:])
        padded[: len(part)] = part
        received = [torch.empty_like(padded) for _ in places]
        ranks.call(dist.all_gather, received, padded)
        order = torch.cat(list(places)).argsort().to(part.device)
        return torch.cat([rows[: len(place)] for rows, place in zip(received, places, strict=True)])[order]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.ranks.reduced(gradients[0], dist.ReduceOp.SUM)[ctx.own], None, None


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: ProcessRanks) -> Tensor:
        ctx.ranks = ranks
        return ranks.reduced(values, dist.ReduceOp.SUM)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.reduced(gradients[0], dist.ReduceOp.SUM), None
