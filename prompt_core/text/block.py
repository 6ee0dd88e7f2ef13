"""A frozen transformer block by hand: forward, and backward to its input alone, into memory that is given.

Autograd would keep what gradients of weights need, which nobody wants here, and take fresh memory for every result.
The readable reference is open_clip's own block (:mod:`prompt_core.text.reference`).

Letters in shape comments: B prefixes, L tokens of each with its pack, n of them that leave the block (L; in the last
block the N end-of-text tokens), D width, F width of the hidden layer, H heads of d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prompt_core.text.attention import Sight, attend, attend_backward
from prompt_core.text.tower import TextTower

QUICK_GELU = 1.702  # slope of OpenAI's approximation of GELU


@dataclass
class Inside:
    """What the backward pass of a block needs of the forward pass.

    Attributes:
        states: (B, L, D), the input.
        qkv: (B, L, 3, H, d).
        attended: (B, L, H, d).
        middle: (B, n, D), states after attention.
        bent: (B, n, F), the hidden layer before its activation; times the slope of QuickGELU.
        log_sums: (B, L, H), of attention.
        statistics: mean and reciprocal deviation of each of the two norms.
    """

    states: Tensor
    qkv: Tensor
    attended: Tensor
    middle: Tensor
    bent: Tensor
    log_sums: Tensor | None = None
    statistics: tuple[tuple[Tensor, Tensor], ...] = ()


class FrozenBlock:
    """A block of a tower without :attr:`TextTower.sharing_obstacle`.

    Args:
        ends: (N,) the tokens that leave the block; None for all.
    """

    def __init__(self, block: Any, tower: TextTower, common: int, sight: Sight, ends: Tensor | None) -> None:
        self.norms: tuple[nn.LayerNorm, nn.LayerNorm] = (block.ln_1, block.ln_2)
        self.into = _Layer(tower, block.attn.in_proj_weight, block.attn.in_proj_bias)
        self.out = _Layer(tower, block.attn.out_proj.weight, block.attn.out_proj.bias, block.ls_1)
        self.expand = _Layer(tower, block.mlp.c_fc.weight, block.mlp.c_fc.bias)
        self.contract = _Layer(tower, block.mlp.c_proj.weight, block.mlp.c_proj.bias, block.ls_2)
        self.activation = block.mlp.gelu
        self.slope = QUICK_GELU if type(self.activation).__name__ == "QuickGELU" else 1.0
        self.common, self.sight, self.ends = common, sight, ends

    def forward_to_hidden(self, inside: Inside) -> None:
        """From ``inside.states`` to all the rest of ``inside``."""
        states, ends = inside.states, self.ends
        normed, *first = self._norm(0, states)
        if ends is None:
            self.into.forward(normed, inside.qkv.flatten(2))
        else:
            # Queries of the other tokens are zero: what they attend to is not read.
            query, rest = self.into.split(states.shape[-1])
            rest.forward(normed, inside.qkv.flatten(2)[..., states.shape[-1] :])
            inside.qkv[:, :, 0] = 0
            inside.qkv[:, ends, 0] = query.forward(normed[:, ends]).unflatten(-1, inside.qkv.shape[-2:])
        inside.log_sums = attend(inside.qkv, self.common, self.sight, inside.attended)
        attended = inside.attended.flatten(2)
        if ends is not None:
            states, attended = states[:, ends], attended[:, ends]
        self.out.forward_onto(states, attended, inside.middle)
        normed, *second = self._norm(1, inside.middle)
        # x sigmoid(1.702 x) is silu(1.702 x) / 1.702, one kernel. The product before it includes the factor, the one
        # after it removes it, both at no cost.
        self.expand.forward(normed, inside.bent, self.slope)
        inside.statistics = ((first[0], first[1]), (second[0], second[1]))

    def forward_from_hidden(self, inside: Inside, hidden: Tensor, output: Tensor) -> None:
        """The ``output`` (B, n, D); ``hidden`` (B, n, F) is memory to work in."""
        _activate(self.activation, inside.bent, hidden)
        self.contract.forward_onto(inside.middle, hidden, output, 1 / self.slope)

    def backward(self, inside: Inside, gradient: Tensor, hidden: Tensor, of_qkv: Tensor) -> Tensor:
        """The gradient at ``inside.states``, given the one at the output; the two slopes cancel.

        Args:
            gradient: (B, n, D).
            hidden, of_qkv: (B, n, F) and (B, L, 3, H, d), memory to work in, which may be the same.
        """
        ends = self.ends
        self.contract.backward(gradient, hidden)
        _activate_backward(self.activation, inside.bent, hidden)
        middle = self._norm_backward(1, inside, self.expand.backward(hidden)).add_(gradient)  # (B, n, D)
        of_attended = self.out.backward(middle)
        if ends is not None:
            of_attended = torch.zeros_like(inside.attended.flatten(2)).index_copy_(1, ends, of_attended)
        assert inside.log_sums is not None
        attend_backward(
            of_attended.view_as(inside.attended),
            inside.qkv,
            self.common,
            self.sight,
            inside.attended,
            inside.log_sums,
            of_qkv,
        )
        if ends is None:
            return self._norm_backward(0, inside, self.into.backward(of_qkv.flatten(2))).add_(middle)
        query, rest = self.into.split(gradient.shape[-1])
        of_normed = rest.backward(of_qkv.flatten(2)[..., gradient.shape[-1] :])
        of_normed.index_add_(1, ends, query.backward(of_qkv[:, ends, 0].flatten(2)))
        return self._norm_backward(0, inside, of_normed).index_add_(1, ends, middle)

    def _norm(self, which: int, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        norm = self.norms[which]
        normed, mean, deviation = torch.native_layer_norm(
            states, norm.normalized_shape, norm.weight, norm.bias, norm.eps
        )
        return normed.to(self.into.weight.dtype), mean, deviation

    def _norm_backward(self, which: int, inside: Inside, gradient: Tensor) -> Tensor:
        norm, states = self.norms[which], inside.middle if which else inside.states
        return torch.ops.aten.native_layer_norm_backward(
            gradient.to(states.dtype),
            states,
            norm.normalized_shape,
            *inside.statistics[which],
            norm.weight,
            norm.bias,
            [True, False, False],
        )[0]


class _Layer:
    """A frozen linear layer x W^T + b, in the type that the tower computes in.

    Args:
        scale: a module of open_clip that multiplies the result by its ``gamma``, or does nothing.
    """

    def __init__(self, tower: TextTower, weight: Tensor, bias: Tensor | None, scale: Any = None) -> None:
        gamma = getattr(scale, "gamma", None)
        if gamma is not None:
            weight, bias = weight * gamma[:, None], None if bias is None else bias * gamma
        self.weight = tower.cast(weight)
        self.bias = torch.zeros_like(self.weight[:, 0]) if bias is None else tower.cast(bias)

    def split(self, size: int) -> tuple[_Layer, _Layer]:
        """The layers of the first ``size`` results and of the others."""
        parts = []
        for rows in (slice(size), slice(size, None)):
            part = object.__new__(_Layer)
            part.weight, part.bias = self.weight[rows], self.bias[rows]
            parts.append(part)
        return parts[0], parts[1]

    def forward(self, inputs: Tensor, out: Tensor | None = None, factor: float = 1.0) -> Tensor:
        """``factor`` (x W^T + b); ``out`` may be a part of the columns of a matrix."""
        rows = inputs.flatten(0, 1)
        flat = None if out is None else out.view(-1, out.shape[-1])
        result = torch.addmm(self.bias, rows, self.weight.t(), beta=factor, alpha=factor, out=flat)
        return result.unflatten(0, inputs.shape[:2])

    def forward_onto(self, states: Tensor, inputs: Tensor, out: Tensor, factor: float = 1.0) -> None:
        """``states`` + ``factor`` x W^T + b."""
        rows = inputs.flatten(0, 1)
        if states.dtype == self.weight.dtype:
            torch.add(states, self.bias, out=out)
            out.view(-1, out.shape[-1]).addmm_(rows, self.weight.t(), alpha=factor)
        else:
            product = torch.addmm(self.bias, rows, self.weight.t(), alpha=factor)
            torch.add(states, product.view_as(states), out=out)

    def backward(self, gradient: Tensor, out: Tensor | None = None) -> Tensor:
        """The gradient at the input (B, n, in), given that at the result, (B, n, out)."""
        rows = gradient.to(self.weight.dtype).flatten(0, 1)
        product = torch.mm(rows, self.weight, out=None if out is None else out.view(-1, out.shape[-1]))
        return product.unflatten(0, gradient.shape[:2])


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
