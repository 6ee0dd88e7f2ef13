"""Exact gradients in bounded memory: gradient caching (arXiv 2101.06983) over chunks of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def chunked_features(encode: Callable[..., Tensor], chunks: list[np.ndarray], dim: int, *tensors: Tensor) -> Tensor:
    """``encode`` over chunks, joined along ``dim``; no graph is kept between the forward and the backward pass.

    Args:
        encode: (rows of a chunk, *tensors) to the features of these rows, deterministic.
        tensors: what the features are differentiable in.
    """
    return _ChunkedFeatures.apply(encode, chunks, dim, *tensors)


class _ChunkedFeatures(torch.autograd.Function):
    """Features first, without a graph; in the backward pass each chunk is encoded again and passes its gradient on."""

    @staticmethod
    def forward(
        ctx: Any, encode: Callable[..., Tensor], chunks: list[np.ndarray], dim: int, *tensors: Tensor
    ) -> Tensor:
        ctx.encode, ctx.chunks, ctx.dim = encode, chunks, dim
        ctx.save_for_backward(*tensors)
        with torch.no_grad():
            return torch.cat([encode(chunk, *tensors) for chunk in chunks], dim=dim)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        tensors = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[3:], strict=True)
        ]
        learned = [tensor for tensor in tensors if tensor.requires_grad]
        totals = [torch.zeros_like(tensor) for tensor in learned]
        start = 0
        for chunk in ctx.chunks:
            part = grads[0].narrow(ctx.dim, start, len(chunk))
            start += len(chunk)
            with torch.enable_grad():
                features = ctx.encode(chunk, *tensors)
            found = torch.autograd.grad(features, learned, part, allow_unused=True)
            for total, gradient in zip(totals, found, strict=True):
                if gradient is not None:
                    total += gradient
        remaining = iter(totals)
        return (None, None, None, *(next(remaining) if tensor.requires_grad else None for tensor in tensors))
