"""A frozen linear layer: its product, and the gradient at its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.text.workspace import KEPT_BLOCK

if TYPE_CHECKING:
    from prompt_core.text.tower import TextTower


@dataclass(frozen=True)
class FrozenLayer:
    """x W^T + b for rows x, in the type that the tower computes in.

    Attributes:
        weight: (out, in).
        bias: (out,).
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, tower: TextTower, weight: Tensor, bias: Tensor | None, scale: Any = None) -> FrozenLayer:
        """A layer of open_clip.

        Args:
            scale: a module that multiplies the result by its ``gamma``, or does nothing.
        """
        gamma = getattr(scale, "gamma", None)
        if gamma is not None:
            weight, bias = weight * gamma[:, None], None if bias is None else bias * gamma
        weight = tower.cast(weight)
        return cls(weight, torch.zeros_like(weight[:, 0]) if bias is None else tower.cast(bias))

    def split(self, size: int) -> tuple[FrozenLayer, FrozenLayer]:
        """The layers of the first ``size`` results and of the others."""
        first, others = ((self.weight[rows], self.bias[rows]) for rows in (slice(size), slice(size, None)))
        return FrozenLayer(*first), FrozenLayer(*others)

    def forward(self, inputs: Tensor, room: Tensor | None = None) -> Tensor:
        """x W^T + b, in ``room`` where the result is too large for memory that malloc keeps (:class:`Workspace`)."""
        if room is not None and room.numel() * room.element_size() > KEPT_BLOCK // 4:
            return torch.addmm(self.bias, inputs, self.weight.t(), out=room)
        return product(inputs, self.weight, self.bias)

    def forward_onto(self, out: Tensor, states: Tensor, inputs: Tensor, factor: float = 1.0) -> None:
        """``states`` + ``factor`` x W^T + b, into ``out``."""
        bias = self.bias if factor == 1 else self.bias / factor
        torch.add(states, product(inputs, self.weight, bias), alpha=factor, out=out)

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient at x, given the one at the result."""
        return product(gradient.to(self.weight.dtype), self.weight.t(), None)


def product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """rows W^T + b. oneDNN, which torch calls only for other types, is faster than MKL on processors without AMX."""
    if _has_onednn(rows):
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return F.linear(rows, weight, bias)


def _has_onednn(rows: Tensor) -> bool:
    if rows.dtype != torch.float32 or rows.device.type != "cpu":
        return False
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)
