"""Sine position encodings of a feature map."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def sine_positions(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Fixed position encodings (1, channels, height, width) of DETR (arXiv 2005.12872, section A.4).

    The first half of the channels encodes the row, the second half the column, each as sines and cosines in turn of the
    position scaled to (0, 2π].
    """
    half = channels // 2
    exponent = 2 * torch.div(torch.arange(half, device=device), 2, rounding_mode="floor") / half
    frequency = TEMPERATURE**exponent  # (half,)

    def encode(count: int) -> Tensor:
        place = torch.arange(1, count + 1, device=device, dtype=torch.float32) / (count + 1e-6) * 2 * math.pi
        angle = place[:, None] / frequency  # (count, half)
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    rows = encode(height)[:, None].expand(-1, width, -1)
    columns = encode(width)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=2).permute(2, 0, 1)[None]
