"""CLIP features of images of any size: position embeddings are resized to the grid of patches.

Published prompt tuning crops regions to 224 x 244 pixels, which ZSSeg's copy of CLIP takes
(``third_party/CLIP/clip/model.py``); open_clip's towers take their own square only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from prompt_core.clip import Clip


@torch.no_grad()
def encode_any_size(clip: Clip, images: Tensor) -> Tensor:
    """Unit-norm features (B, E) of normalised images (B, 3, H, W).

    Vision transformers and CLIP's ResNets get position embeddings resized by bicubic interpolation. Towers without
    position embeddings take any size; others get the images squeezed into their square.
    """
    square = (clip.image_size, clip.image_size)
    if tuple(images.shape[-2:]) == square:
        return clip.encode_image(images)
    visual: Any = clip.model.visual
    if hasattr(visual, "conv1") and hasattr(visual, "class_embedding"):
        side = visual.conv1.kernel_size[0]
        return _with_positions(clip, images, "positional_embedding", side)
    if hasattr(visual, "attnpool"):
        return _with_positions(clip, images, "attnpool.positional_embedding", 32)
    if any(name.split(".")[-1] in ("pos_embed", "positional_embedding") for name, _ in visual.named_parameters()):
        images = F.interpolate(images, size=square, mode="bicubic", align_corners=False)
    return clip.encode_image(images)


def _with_positions(clip: Clip, images: Tensor, key: str, stride: int) -> Tensor:
    """Features with the tower's position embeddings ``key`` resized to the image; ``stride`` pixels are one place."""
    visual: Any = clip.model.visual
    positions = visual.get_parameter(key)
    grid = (images.shape[-2] // stride, images.shape[-1] // stride)
    resized = {key: resize_positions(positions, grid)}
    features = functional_call(visual, resized, (images.to(clip.device, clip.dtype),))
    return F.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1 + S * S, D), the class token's first, for another grid: (1 + h * w, D)."""
    side = round((len(positions) - 1) ** 0.5)
    places = positions[1:].T.reshape(1, -1, side, side)  # (1, D, S, S)
    places = F.interpolate(places, size=grid, mode="bicubic", align_corners=False)
    return torch.cat((positions[:1], places.flatten(2)[0].T))
