"""The backbone in half precision on a GPU, for published runs, which set ``FP16``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def backbone_features(backbone: Any, images: Tensor, half_precision: bool) -> dict[str, Tensor]:
    """Features of normalised images (B, 3, H, W), in float32.

    Args:
        half_precision: run the backbone in half precision on a GPU; on a CPU it stays in float32.
    """
    half = half_precision and images.is_cuda
    with torch.autocast(images.device.type, dtype=torch.float16, enabled=half):
        features: dict[str, Tensor] = backbone(images.half() if half else images)
    return {name: feature.float() for name, feature in features.items()} if half else features
