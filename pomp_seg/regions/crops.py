"""Masked crops of an image, CLIP's input for regions (ZSSeg, arXiv 2112.14757, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.clip import Clip
from prompt_core.errors import UserError
from prompt_core.towers.placement import upload


def check_expansion(ratio: float) -> None:
    """Raises UserError when boxes enlarged by ``ratio`` would have no extent."""
    if ratio <= 0:
        raise UserError(f"MASK_EXPAND_RATIO is {ratio}; a positive number is expected, 1 for the box")


def expanded_box(box: Sequence[float], ratio: float, height: int, width: int) -> tuple[int, int, int, int]:
    """A box of whole pixels ``(left, top, right, bottom)``, enlarged about its centre and clipped to the image.

    As published, corners are truncated to whole pixels towards zero after enlarging.
    """
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    half_width, half_height = (right - left) * ratio / 2, (bottom - top) * ratio / 2
    first_column, first_row = max(int(x - half_width), 0), max(int(y - half_height), 0)
    # A box that shrinks keeps at least one pixel.
    return (
        first_column,
        first_row,
        max(min(int(x + half_width), width), first_column + 1),
        max(min(int(y + half_height), height), first_row + 1),
    )


def mask_boxes(masks: Tensor) -> Tensor:
    """Bounding boxes (R, 4) of binary masks (R, H, W), the right and bottom side one pixel past the mask.

    Those of empty masks are zeros, all as of Detectron2's ``BitMasks``, which makes them on the CPU mask by mask.
    """
    sides = []
    for dim in (1, 2):
        taken = masks.any(dim=dim).byte()  # (R, W), then (R, H)
        first, behind = taken.argmax(dim=1), taken.shape[1] - taken.flip(1).argmax(dim=1)
        sides.append(torch.stack((first, behind), dim=1) * taken.any(dim=1, keepdim=True))
    return torch.stack(sides, dim=2).flatten(1).float()  # left, top, right, bottom


def masked_crops(
    image: Tensor, masks: Tensor, boxes: Tensor, size: int, fill: Tensor, mean: Tensor, std: Tensor, expand: float = 1.0
) -> Tensor:
    """Normalised crops (R, 3, size, size) of regions; the aspect ratio is not kept.

    Resizing is bicubic without anti-aliasing, after normalising, as published.

    Args:
        image: (3, H, W) in 0..255.
        masks: (R, H, W), binary or soft; pixels outside get the colour ``fill``.
        boxes: (R, 4), see :func:`mask_boxes`.
        fill: (3,) in 0..255.
        mean: (3,) in 0..255, as ``std``.
        expand: enlargement of the boxes.
    """
    height, width = image.shape[-2:]
    # With the fill subtracted first, filling is one product.
    centred = image.to(mean.dtype) - fill.view(3, 1, 1)
    offset = ((fill - mean) / std).view(3, 1, 1)
    scaled = centred / std.view(3, 1, 1)
    crops = image.new_empty((len(masks), 3, size, size), dtype=mean.dtype)
    for row, (mask, box) in enumerate(zip(masks, boxes.tolist(), strict=True)):
        left, top, right, bottom = expanded_box(box, expand, height, width)
        crop = scaled[:, top:bottom, left:right] * mask[top:bottom, left:right].to(scaled.dtype) + offset
        crops[row] = F.interpolate(crop[None], size=(size, size), mode="bicubic", align_corners=False)[0]
    return crops


def squared_image(clip: Clip, image: Tensor) -> Tensor:
    """An image (3, H, W) in 0..255 squeezed into CLIP's square and normalised: (1, 3, S, S)."""
    size = clip.image_size
    pixels = F.interpolate(
        image[None].float(), size=(size, size), mode="bicubic", align_corners=False, antialias=True
    ).clamp(0, 255)
    mean, std = (
        upload(torch.tensor(values), pixels.device).view(3, 1, 1) for values in (clip.image_mean, clip.image_std)
    )
    return (pixels / 255 - mean) / std


def distinct_masks(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Find equal masks.

    Args:
        masks: binary (R, H, W).

    Returns:
        Rows of the first occurrences (U,), and for each mask which of them it equals (R,).
    """
    first: list[int] = []
    inverse: list[int] = []
    seen: dict[bytes, int] = {}
    packed = masks.flatten(1).cpu().numpy()
    for row in range(len(masks)):
        key = packed[row].tobytes()
        if key not in seen:
            seen[key] = len(first)
            first.append(row)
        inverse.append(seen[key])
    return torch.tensor(first, dtype=torch.int64), torch.tensor(inverse, dtype=torch.int64)
