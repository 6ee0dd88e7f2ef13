"""Exact gradients in bounded memory: gradient caching (arXiv 2101.06983) over chunks of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def chunked_features(encode: Callable[..., Tensor], count: int, dim: int, *tensors: Tensor) -> Tensor:
    """Features of ``count`` chunks, joined along ``dim``; no graph is kept between the forward and the backward pass.

    Args:
        encode: (index of a chunk, *tensors) to the features of that chunk, the same at every call. It is called
            without a graph first, and with one in the backward pass.
        tensors: what the features are differentiable in.
    """
    return _ChunkedFeatures.apply(encode, count, dim, *tensors)


class _ChunkedFeatures(torch.autograd.Function):
    """The gradient is first taken at the features, then carried on chunk by chunk."""

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
            found = torch.autograd.grad(features, learned, part, allow_unused=True)
            for total, gradient in zip(totals, found, strict=True):
                if gradient is not None:
                    total += gradient
        remaining = iter(totals)
        return (None, None, None, *(next(remaining) if tensor.requires_grad else None for tensor in tensors))
