"""Masks on a small grid over each box, and the same in the photo: one at a time, however large the photo is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from pycocotools import mask as run_lengths
from torch import Tensor

BOX_MASKS = "box_masks"  # field of Instances: (n, M, M) probabilities
THRESHOLD = 0.5
# Pixels that are interpolated at once: 16 MiB with their coordinates.
AT_ONCE = 1 << 20


def paste_masks(detections: Instances) -> Tensor:
    """All masks in the photo, (n, H, W) bool: n bytes for each pixel."""
    height, width = detections.image_size
    masks = torch.zeros((len(detections), height, width), dtype=torch.bool)
    boxes = detections.pred_boxes.tensor
    for mask, box_mask, box in zip(masks, detections.get(BOX_MASKS), boxes, strict=True):
        for (rows, columns), inside in _pasted(box_mask, box, height, width):
            mask[rows, columns] = inside
    return masks


def encode_masks(detections: Instances) -> list[dict[str, Any]]:
    """Compressed run lengths of all masks in the photo; memory holds one byte for each of its pixels."""
    height, width = detections.image_size
    canvas = np.zeros((height, width), dtype=np.uint8, order="F")  # as pycocotools reads it
    encoded = []
    for box_mask, box in zip(detections.get(BOX_MASKS), detections.pred_boxes.tensor, strict=True):
        written = []
        for place, inside in _pasted(box_mask, box, height, width):
            canvas[place] = inside.numpy()
            written.append(place)
        rle = run_lengths.encode(canvas[:, :, None])[0]
        encoded.append({"size": rle["size"], "counts": rle["counts"].decode("ascii")})
        for place in written:
            canvas[place] = 0
    return encoded


def _pasted(mask: Tensor, box: Tensor, height: int, width: int) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """The part of a photo around a box, in bands of columns: where it is, and whether its pixels are in the mask.

    As Detectron2's ``paste_masks_in_image`` on the CPU: bilinear between the centres of the grid's cells, zero outside.

    Args:
        mask: (M, M) probabilities.
        box: (4,) x0, y0, x1, y1 in pixels.
    """
    x0, y0, x1, y1 = box
    left, top = (max(0, int(edge.floor()) - 1) for edge in (x0, y0))
    right, bottom = min(width, int(x1.ceil()) + 1), min(height, int(y1.ceil()) + 1)
    if right <= left or bottom <= top:
        return
    y = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - y0) / (y1 - y0) * 2 - 1
    step = max(1, AT_ONCE // (bottom - top))
    for start in range(left, right, step):
        stop = min(right, start + step)
        x = (torch.arange(start, stop, dtype=torch.float32) + 0.5 - x0) / (x1 - x0) * 2 - 1
        grid = torch.stack([x[None, :].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=2)  # (h, w, 2)
        values = F.grid_sample(mask.float()[None, None], grid[None], align_corners=False)[0, 0]  # (h, w)
        yield (slice(top, bottom), slice(start, stop)), values >= THRESHOLD
