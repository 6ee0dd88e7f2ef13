"""A frozen transformer block by hand: forward, and backward to its input alone.

Autograd would keep what gradients of weights need, which nobody wants here, and take fresh memory for every result.
The readable reference is open_clip's own block (:mod:`prompt_core.text.reference`).

Letters in shape comments: M rows, which are the L tokens of B prefixes with their pack, one after the other; m rows
that leave the block (M; in the last block the end-of-text tokens, N for each prefix), D width, F width of the hidden
layer, H heads of d.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prompt_core.text.attention import Attended, SharedPrefixAttention
from prompt_core.text.frozen_layer import FrozenLayer
from prompt_core.text.tower import TextTower

QUICK_GELU = 1.702  # slope of OpenAI's approximation of GELU
# Rows of the hidden layer at a time: few enough to stay in the caches between its two products.
HIDDEN_ROWS = 1024


@dataclass
class Inside:
    """What the backward pass of a block needs of the forward pass.

    Attributes:
        states: (M, D), the input.
        attended: of attention.
        middle: (m, D), states after attention.
        bent: (m, F), the hidden layer before its activation; times the slope of QuickGELU.
        statistics: mean and reciprocal deviation of each of the two norms.
    """

    states: Tensor
    attended: Attended
    middle: Tensor
    bent: Tensor
    statistics: tuple[tuple[Tensor, Tensor], ...] = ()


class FrozenBlock:
    """A block of a tower without :attr:`TextTower.sharing_obstacle`.

    Args:
        attention: of the pass.
        leaving: (m,) the rows that leave the block; None for all.
    """

    def __init__(self, block: Any, tower: TextTower, attention: SharedPrefixAttention, leaving: Tensor | None) -> None:
        self.norms: tuple[nn.LayerNorm, nn.LayerNorm] = (block.ln_1, block.ln_2)
        self.into = FrozenLayer.of(tower, block.attn.in_proj_weight, block.attn.in_proj_bias)
        self.out = FrozenLayer.of(tower, block.attn.out_proj.weight, block.attn.out_proj.bias, block.ls_1)
        self.expand = FrozenLayer.of(tower, block.mlp.c_fc.weight, block.mlp.c_fc.bias)
        self.contract = FrozenLayer.of(tower, block.mlp.c_proj.weight, block.mlp.c_proj.bias, block.ls_2)
        self.activation = block.mlp.gelu
        self.slope = QUICK_GELU if type(self.activation).__name__ == "QuickGELU" else 1.0
        self.attention, self.leaving = attention, leaving

    def forward(self, inside: Inside, output: Tensor | None, room: Tensor) -> None:
        """All of ``inside`` from its states, and the ``output`` (m, D) if it is wanted.

        Args:
            room: (B, L, 3, H, d), memory to work in.
        """
        self._attend(inside, room)
        normed, *statistics = self._norm(1, inside.middle)
        inside.statistics = (inside.statistics[0], (statistics[0], statistics[1]))
        # x sigmoid(1.702 x) is silu(1.702 x) / 1.702, one kernel. What is kept includes the factor, the residual after
        # it removes it, both at no cost.
        for rows in _parts(len(normed)):
            bent, hidden = inside.bent[rows], self.expand.forward(normed[rows])
            torch.mul(hidden, self.slope, out=bent)
            if output is not None:
                _activate(self.activation, bent, hidden)
                self.contract.forward_onto(output[rows], inside.middle[rows], hidden, 1 / self.slope)

    def backward(self, inside: Inside, gradient: Tensor, room: Tensor) -> Tensor:
        """The gradient (M, D) at ``inside.states``, given the one (m, D) at the output.

        Args:
            room: as for :meth:`forward`.
        """
        middle = torch.empty_like(inside.middle)
        for rows in _parts(len(middle)):
            hidden = self.contract.backward(gradient[rows])  # the two slopes cancel
            _activate_backward(self.activation, inside.bent[rows], hidden)
            of_states = self._norm_backward(1, inside.middle, inside, self.expand.backward(hidden), rows)
            torch.add(of_states, gradient[rows], out=middle[rows])
        of_attended = self.out.backward(middle)
        if self.leaving is not None:
            everywhere = of_attended.new_zeros(len(inside.states), of_attended.shape[1])
            of_attended = everywhere.index_copy_(0, self.leaving, of_attended)
        self.attention.backward(of_attended.view_as(room[:, :, 0]), inside.attended, room)
        of_qkv, width = room.view(len(inside.states), -1), gradient.shape[1]  # (M, 3D)
        if self.leaving is None:
            return self._norm_backward(0, inside.states, inside, self.into.backward(of_qkv)).add_(middle)
        query, rest = self.into.split(width)
        of_normed = rest.backward(of_qkv[:, width:])
        of_normed.index_add_(0, self.leaving, query.backward(of_qkv[self.leaving, :width]))
        return self._norm_backward(0, inside.states, inside, of_normed).index_add_(0, self.leaving, middle)

    def _attend(self, inside: Inside, room: Tensor) -> None:
        """The first half, up to ``inside.middle``."""
        states, leaving = inside.states, self.leaving
        normed, *statistics = self._norm(0, states)
        inside.statistics = ((statistics[0], statistics[1]),)
        if leaving is None:
            qkv = self.into.forward(normed, room.view(len(normed), -1))  # (M, 3D)
        else:
            # Queries of the other tokens are zero: what they attend to is not read.
            query, rest = self.into.split(states.shape[1])
            queries = torch.zeros_like(normed).index_copy_(0, leaving, query.forward(normed[leaving]))
            qkv = torch.cat([queries, rest.forward(normed)], dim=1)
        attended = self.attention.forward(qkv.view_as(room), inside.attended).view(len(states), -1)
        if leaving is not None:
            states, attended = states[leaving], attended[leaving]
        self.out.forward_onto(inside.middle, states, attended)

    def _norm(self, which: int, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        norm = self.norms[which]
        normed, mean, deviation = torch.native_layer_norm(
            states, norm.normalized_shape, norm.weight, norm.bias, norm.eps
        )
        return normed.to(self.into.weight.dtype), mean, deviation

    def _norm_backward(
        self, which: int, states: Tensor, inside: Inside, gradient: Tensor, rows: slice = slice(None)
    ) -> Tensor:
        norm, (mean, deviation) = self.norms[which], inside.statistics[which]
        return torch.ops.aten.native_layer_norm_backward(
            gradient.to(states.dtype),
            states[rows],
            norm.normalized_shape,
            mean[rows],
            deviation[rows],
            norm.weight,
            norm.bias,
            [True, False, False],
        )[0]


def _parts(count: int) -> Iterator[slice]:
    """Parts of about equal size, none above :data:`HIDDEN_ROWS`."""
    size = -(-count // max(1, -(-count // HIDDEN_ROWS)))
    return (slice(start, min(start + size, count)) for start in range(0, count, max(1, size)))


def _activate(activation: nn.Module, bent: Tensor, out: Tensor) -> None:
    if type(activation).__name__ == "QuickGELU":
        torch.ops.aten.silu.out(bent, out=out)
    elif isinstance(activation, nn.GELU):
        torch.ops.aten.gelu.out(bent, approximate=activation.approximate, out=out)
    else:
        out.copy_(activation(bent))


def _activate_backward(activation: nn.Module, bent: Tensor, gradient: Tensor) -> None:
    """In place, from the gradient after the activation to the one before."""
    if type(activation).__name__ == "QuickGELU":
        torch.ops.aten.silu_backward.grad_input(gradient, bent, grad_input=gradient)
    elif isinstance(activation, nn.GELU):
        torch.ops.aten.gelu_backward.grad_input(gradient, bent, approximate=activation.approximate, grad_input=gradient)
    else:
        with torch.enable_grad():
            inputs = bent.detach().requires_grad_()
            (before,) = torch.autograd.grad(activation(inputs), inputs, gradient)
        gradient.copy_(before)
