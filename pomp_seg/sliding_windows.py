"""A photo in overlapping windows, each segmented by itself (``TEST.SLIDING_WINDOW``)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from prompt_core.errors import UserError

# Sides of windows by the shorter side of the resized photo, for TEST.SLIDING_TILE_SIZE 0 (ZSSeg,
# mask_former/test_time_augmentation.py).
SIDES = {256: 224, 512: 256, 768: 512, 896: 512}


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows along one side begin: each a stride of ``window * (1 - overlap)`` further, the last at the end.

    Args:
        length: of the side, in pixels.
        window: of a window; one that is longer than the side starts at 0 alone.
        overlap: share of a window that the next one covers too, 0 <= overlap < 1.
    """
    stride = math.ceil(window * (1 - overlap))
    count = math.ceil(max(length - window, 0) / stride) + 1
    return [max(min(number * stride, length - window), 0) for number in range(count)]


def window_side(height: int, width: int, side: int) -> int:
    """The side of the windows of a photo: ``side``, or for 0 by :data:`SIDES`.

    Raises:
        UserError: for 0 and a photo whose shorter side is not of the table.
    """
    if side > 0:
        return side
    shorter = min(height, width)
    if shorter not in SIDES:
        raise UserError(
            f"TEST.SLIDING_TILE_SIZE 0 knows windows for shorter sides of {', '.join(map(str, SIDES))} pixels, and the "
            f"photo was resized to {width} x {height}; give the side of the windows"
        )
    return SIDES[shorter]


def by_windows(image: Tensor, scores: Callable[[Tensor], Tensor], side: int, overlap: float) -> Tensor:
    """The mean of the scores (C, h, w) that the windows over a pixel give it.

    Not as in ZSSeg: an image that is smaller than a window is not padded with black to the window's size.

    Args:
        image: (3, h, w).
        scores: called with each window (3, h', w'), gives (C, h', w').
        side: of the windows.
        overlap: see :func:`window_starts`.
    """
    height, width = image.shape[-2:]
    total, count = torch.zeros(0), torch.zeros(height, width)
    for top in window_starts(height, side, overlap):
        for left in window_starts(width, side, overlap):
            place = slice(top, top + side), slice(left, left + side)
            of_window = scores(image[:, place[0], place[1]])
            if not len(total):
                total = of_window.new_zeros(len(of_window), height, width)
                count = count.to(of_window)
            total[:, place[0], place[1]] += of_window
            count[place] += 1
    return total.div_(count)
