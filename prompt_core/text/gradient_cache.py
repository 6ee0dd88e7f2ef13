"""Exact gradients in bounded memory: gradient caching (arXiv 2101.06983) over chunks of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prompt_core.text.shared_prefix import SuffixPack, attend_and_expand, contract_gradient, encode_shared_prefix
from prompt_core.text.tower import TextTower


def chunked_features(encode: Callable[..., Tensor], count: int, dim: int, *tensors: Tensor) -> Tensor:
    """Features of ``count`` chunks, joined along ``dim``; no graph is kept between the forward and the backward pass.

    Args:
        encode: (index of a chunk, *tensors) to the features of that chunk, the same at every call. It is called
            without a graph first, and with one in the backward pass.
        tensors: what the features are differentiable in.
    """
    return _ChunkedFeatures.apply(encode, count, dim, *tensors)


class _ChunkedFeatures(torch.autograd.Function):
    """The gradient is first computed at the features, then propagated chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, encode: Callable[..., Tensor], count: int, dim: int, *tensors: Tensor) -> Tensor:
        ctx.encode, ctx.dim = encode, dim
        ctx.save_for_backward(*tensors)
        with torch.no_grad():
            parts = [encode(index, *tensors) for index in range(count)]
        ctx.sizes = [part.shape[dim] for part in parts]
        return torch.cat(parts, dim=dim)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        tensors = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[3:], strict=True)
        ]
        learned = [tensor for tensor in tensors if tensor.requires_grad]
        totals = [torch.zeros_like(tensor) for tensor in learned]
        for index, part in enumerate(grads[0].split(ctx.sizes, dim=ctx.dim)):
            with torch.enable_grad():
                features = ctx.encode(index, *tensors)
            gradients = torch.autograd.grad(features, learned, part, allow_unused=True)
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total += gradient
        remaining = iter(totals)
        return (None, None, None, *(next(remaining) if tensor.requires_grad else None for tensor in tensors))


class KeptStates:
    """The states of one pass of :func:`encode_shared_prefix`, so that a second one with a graph need not run.

    The first call of :meth:`encode` computes and stores them, later ones return them. Their backward pass goes block by
    block and recomputes the inside of a block, except for its last projection, which is linear (activation
    checkpointing, arXiv 1604.06174).

    Args:
        place: (:meth:`size`,) where to keep the states. All of it should come from one allocation: between the
            temporaries of many passes, small ones would scatter over the heap and waste several times their size.
    """

    def __init__(self, place: Tensor) -> None:
        self.place = place
        self.filled = False

    @staticmethod
    def size(tower: TextTower, batch: int, tokens: int, names: int) -> int:
        """Elements that B prefixes with P + T ``tokens`` and N ``names`` take."""
        return batch * tower.width * (len(tower.blocks) * tokens + names)

    def encode(
        self, tower: TextTower, prefix: Tensor, suffix: Tensor, pack: SuffixPack, deep_context: Tensor | None = None
    ) -> Tensor:
        """See :func:`encode_shared_prefix`; every call must have the same arguments."""
        batch, common, width = prefix.shape
        output = self.place[-batch * len(pack.unsort) * width :].view(batch, -1, width)  # (B, N, D)
        inputs = self.place[: -output.numel()].view(len(tower.blocks), batch, -1, width)  # (blocks, B, P + T, D)
        if not self.filled:
            output.copy_(encode_shared_prefix(tower, prefix, suffix, pack, deep_context, inputs))
            self.filled = True
            return output
        states = torch.cat([prefix, suffix], dim=1)
        return _KeptBlocks.apply(states, deep_context, tower, common, pack, inputs, output)


class _KeptBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        deep_context: Tensor | None,
        tower: TextTower,
        common: int,
        pack: SuffixPack,
        inputs: Tensor,
        output: Tensor,
    ) -> Tensor:
        ctx.tower, ctx.common, ctx.pack, ctx.inputs = tower, common, pack, inputs
        ctx.deep_shape = None if deep_context is None else deep_context.shape
        return output.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        blocks: list[Any] = list(ctx.tower.blocks)
        rows = torch.from_numpy(ctx.pack.rows[ctx.pack.ends]).to(grads[0].device)
        gradient = grads[0][:, rows]  # (B, N, D), in pack order
        deep = None if ctx.deep_shape is None else gradient.new_zeros(ctx.deep_shape)
        for index in reversed(range(len(blocks))):
            states = ctx.inputs[index].detach().requires_grad_()
            with torch.enable_grad():
                last = index == len(blocks) - 1
                reached = attend_and_expand(blocks[index], states, ctx.tower.heads, ctx.common, ctx.pack, last)
            reached_gradients = (gradient, contract_gradient(blocks[index], gradient))
            (gradient,) = torch.autograd.grad(reached, states, reached_gradients)
            if deep is not None and 1 <= index <= len(deep):
                replaced = slice(1, 1 + deep.shape[1])
                deep[index - 1] = gradient[:, replaced].sum(dim=0)
                gradient = gradient.index_fill(1, torch.arange(replaced.start, replaced.stop, device=deep.device), 0)
        return gradient, deep, None, None, None, None, None
