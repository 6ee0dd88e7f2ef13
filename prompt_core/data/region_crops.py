"""Boxes of a photo as images for a CLIP: whole pixels, resized to a square."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def region_crops(image: Tensor, boxes: Tensor, size: int, enlargement: float = 1.0) -> Tensor:
    """Square crops (R, 3, size, size) of an image, in 0..255.

    A box is enlarged about its centre, clipped to the image and covers whole pixels. Crops are resized as CLIP's own
    preprocessing does it, bicubic with anti-aliasing, but to both sides: the aspect ratio is not kept.

    Args:
        image: (3, H, W) in 0..255.
        boxes: (R, 4) corners in pixels.
    """
    height, width = image.shape[-2:]
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * enlargement
    crops = []
    for left, top, right, bottom in torch.cat((centre - half, centre + half), dim=1).tolist():
        rows, columns = _pixels(top, bottom, height), _pixels(left, right, width)
        crop = image[None, :, rows, columns].float()
        crops.append(F.interpolate(crop, size=(size, size), mode="bicubic", antialias=True))
    if not crops:
        return image.new_zeros(0, 3, size, size, dtype=torch.float32)
    return torch.cat(crops).clamp(0, 255)  # bicubic overshoots at edges


def _pixels(start: float, stop: float, limit: int) -> slice:
    """The whole pixels of an interval, at least one of ``limit``."""
    first = min(max(math.floor(start), 0), limit - 1)
    return slice(first, max(min(math.ceil(stop), limit), first + 1))
