"""What segmenters with a backbone of their own share: normalised, padded images and the backbone's features of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn

from pomp_engine.half_precision import backbone_features
from pomp_seg.classes import Classes


class Segmenter(nn.Module):
    """Backbone and head.

    Attributes:
        classes: the segmenter's own, or None where each data set brings them.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 0,
        half_precision: bool = False,
    ) -> None:
        """
        Args:
            pixel_mean: of images in 0..255, as ``pixel_std``.
            size_divisibility: height and width of a batch are padded to a multiple; the backbone's where 0 or less.
            half_precision: see :func:`pomp_engine.half_precision.backbone_features`.
        """
        super().__init__()
        self.backbone, self.sem_seg_head, self.half_precision = backbone, sem_seg_head, half_precision
        own = getattr(backbone, "size_divisibility", 0)
        self.size_divisibility = size_divisibility if size_divisibility > 0 else own
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)
        self.classes: Classes | None = None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.pixel_mean.device

    def features(self, batch: Sequence[dict[str, Any]]) -> tuple[dict[str, Tensor], ImageList]:
        """The backbone's features of a batch, and its normalised and padded images."""
        images = [(example["image"].to(self.device).float() - self.pixel_mean) / self.pixel_std for example in batch]
        padded = ImageList.from_tensors(images, self.size_divisibility)
        return backbone_features(self.backbone, padded.tensor, self.half_precision), padded
