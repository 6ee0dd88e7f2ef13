"""What a step of learning needs at least, and how fast this machine is at a plain product and at a plain copy."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pomp_lab.benchmarks.harness import timed
from prompt_core.text.encoder import PromptedTextEncoder

# Side of the square matrices of a product, and bytes of a copy: large enough to be as fast as the machine can.
PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}
COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}
TURNS = 3


def step_operations(
    encoder: PromptedTextEncoder, names: Sequence[str], contexts: int, reference: bool = False
) -> float:
    """Floating-point operations of the matrices of a step: forward, and backward to the inputs.

    Tokens times multiply-adds; neither attention, nor padding, nor what is computed twice counts.

    Args:
        names: different ones.
        reference: all 77 tokens of each through open_clip's tower.
    """
    tower = encoder.tower
    width, hidden = tower.width, tower.hidden
    block, keys = 4 * width**2 + 2 * width * hidden, 2 * width**2  # multiply-adds of a token
    if reference:
        products = len(names) * tower.context_length * len(tower.blocks) * block
    else:
        sequences = encoder.tokenizer.prompts(names, contexts)
        prefix = sequences.prefix_length
        tokens = prefix + int((sequences.lengths - prefix).sum())
        # All tokens of the last block are keys and values, and only end-of-text tokens all the rest.
        products = tokens * ((len(tower.blocks) - 1) * block + keys) + len(names) * (block - keys)
    return 4.0 * products  # a product and a sum, forward and backward


def step_bytes(encoder: PromptedTextEncoder, operations: float) -> float:
    """Bytes that the blocks of a step move at least: weights twice, and what the backward pass reads, written and read.

    Args:
        operations: of the step, by :func:`step_operations`.
    """
    tower = encoder.tower
    weights = [parameter for block in tower.blocks for parameter in block.parameters()]
    width, hidden = tower.width, tower.hidden
    tokens = operations / 4 / (4 * width**2 + 2 * width * hidden)  # of one block
    element = torch.finfo(tower.product_dtype).bits // 8
    moved = sum(weight.numel() for weight in weights) * 2 + tokens * (6 * width + hidden) * 2
    return float(moved * element)


def shares_of_limits(
    encoder: PromptedTextEncoder, names: Sequence[str], contexts: int, reference: bool, seconds: float
) -> dict[str, float]:
    """How much of the speed of a plain product and of a plain copy a step has that took ``seconds``, measured now."""
    device, operations = encoder.tower.device, step_operations(encoder, names, contexts, reference)
    products, copies = product_rate(device, encoder.tower.product_dtype), copy_rate(device)
    moved = step_bytes(encoder, operations)
    return {
        "operations": operations,
        "bytes_moved": moved,
        "product_rate": products,
        "copy_rate": copies,
        "product_share": operations / seconds / products,
        "copy_share": moved / seconds / copies,
    }


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a plain product of large square matrices."""
    side = PRODUCT_SIDE[device.type]
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(first)
    return 2.0 * side**3 / _seconds(lambda: torch.mm(first, second, out=out))


def copy_rate(device: torch.device) -> float:
    """Bytes per second of a plain copy, read and written."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * source.numel() / _seconds(lambda: target.copy_(source))


def _seconds(work: Callable[[], Tensor]) -> float:
    return statistics.median([timed(work)[1] for _ in range(TURNS + 1)][1:])  # the first is a warm-up
