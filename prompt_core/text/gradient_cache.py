"""Exact gradients in bounded memory: gradient caching (arXiv 2101.06983) over chunks of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prompt_core.text.shared_prefix import TowerPass, through_blocks
from prompt_core.text.suffix_pack import SuffixPack
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

    The first call of :meth:`encode` computes and stores them, later ones return them, with a backward pass that
    recomputes the inside of a block (:class:`TowerPass`).

    Args:
        pack: of the suffixes of the pass.
        place: (:meth:`size`,) where to keep the states. All of it should come from one allocation: between the
            temporaries of many passes, small ones would scatter over the heap and waste several times their size.
    """

    def __init__(self, pack: SuffixPack, place: Tensor) -> None:
        self.pack = pack
        self.place = place
        self.filled = False

    @staticmethod
    def size(tower: TextTower, batch: int, common: int, pack: SuffixPack) -> int:
        """Elements that B prefixes of ``common`` tokens and their pack take."""
        return batch * tower.width * (len(tower.blocks) * (common + len(pack.ids)) + len(pack.ends))

    def encode(self, tower: TextTower, prefix: Tensor, suffix: Tensor, deep_context: Tensor | None = None) -> Tensor:
        """See :func:`encode_shared_prefix`; every call must have the same arguments."""
        batch, common, width = prefix.shape
        output = self.place[-batch * len(self.pack.ends) * width :].view(batch, -1, width)  # (B, N, D)
        inputs = self.place[: -output.numel()].view(len(tower.blocks), batch, -1, width)  # (blocks, B, L, D)
        states = torch.cat([prefix, suffix], dim=1)
        run = TowerPass(tower, self.pack, common, batch, inputs)
        if self.filled:
            return through_blocks(run, states, deep_context, output)
        output.copy_(run.forward(states, deep_context))
        self.filled = True
        return output
