"""The common part of segmenters: the backbone's features of padded images, and the CLIP adapter of a section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from detectron2.modeling.meta_arch import build_sem_seg_head
from detectron2.structures import ImageList
from torch import Tensor, nn

from pomp_engine.half_precision import backbone_features
from pomp_seg.clip import ClipAdapter, ClipSource, RegionClipAdapter
from pomp_seg.prompts.build import build_prompt_learner
from pomp_seg.regions.encode import RegionOptions
from pomp_seg.vocabulary import Classes
from prompt_core.towers.placement import upload


class Segmenter(nn.Module):
    """Backbone and head.

    Attributes:
        classes: the segmenter's own, or None where they depend on the data set.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = -1,
        half_precision: bool = False,
    ) -> None:
        """
        Args:
            pixel_mean: of images in 0..255, as ``pixel_std``.
            size_divisibility: height and width of a batch are padded to a multiple; -1 for the backbone's.
            half_precision: see :func:`pomp_engine.half_precision.backbone_features`.
        """
        super().__init__()
        self.backbone, self.sem_seg_head, self.half_precision = backbone, sem_seg_head, half_precision
        of_backbone = getattr(backbone, "size_divisibility", 0)
        self.size_divisibility = size_divisibility if size_divisibility >= 0 else of_backbone
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)
        self.classes: Classes | None = None

    @classmethod
    def parts(cls, cfg: CfgNode) -> dict[str, Any]:
        """The options of all segmenters from a configuration."""
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "half_precision": cfg.FP16,
        }

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.pixel_mean.device

    def features(self, batch: Sequence[dict[str, Any]]) -> tuple[dict[str, Tensor], ImageList]:
        """The backbone's features of a batch, and its normalised and padded images."""
        images = [
            (upload(example["image"], self.device).float() - self.pixel_mean) / self.pixel_std for example in batch
        ]
        padded = ImageList.from_tensors(images, self.size_divisibility)
        return backbone_features(self.backbone, padded.tensor, self.half_precision), padded


def build_region_adapter(cfg: CfgNode, node: CfgNode) -> RegionClipAdapter:
    """The adapter of a ``CLIP_ADAPTER`` or ``REGION_CLIP_ADAPTER`` section; both crop regions in the same way."""
    options = cfg.MODEL.CLIP_ADAPTER
    return RegionClipAdapter(
        ClipSource(node.CLIP_MODEL_NAME, node.CLIP_PRETRAINED),
        build_prompt_learner(node),
        RegionOptions(
            options.REGION_FEATURES,
            options.MASK_FILL,
            options.MASK_EXPAND_RATIO,
            options.MASK_THR,
            options.MASK_MATTING,
            options.REGION_BATCH,
            options.SINGLE_PASS_FIRST_BLOCK,
        ),
    )


def build_adapter(node: CfgNode, tuning: bool = False) -> ClipAdapter:
    """The adapter of a model that classifies whole images or pixels."""
    return ClipAdapter(ClipSource(node.CLIP_MODEL_NAME, node.CLIP_PRETRAINED), build_prompt_learner(node, tuning))
