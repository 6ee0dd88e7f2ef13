"""Prompt tuning on the regions of the ground truth: stage 1 of ZSSeg (arXiv 2112.14757, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from pomp_seg.clip import ClipAdapter
from pomp_seg.models.segmenter import build_adapter
from pomp_seg.regions.encode import similarity_logits
from pomp_seg.vocabulary import Classes, batch_classes


@META_ARCH_REGISTRY.register()
class ProposalClipClassifier(nn.Module):
    """Classifies masked crops with a frozen CLIP; only the prompt learns."""

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(self, clip_adapter: ClipAdapter) -> None:
        super().__init__()
        self.clip_adapter = clip_adapter
        clip = clip_adapter.clip
        self.register_buffer("pixel_mean", torch.tensor(clip.image_mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(clip.image_std).view(1, -1, 1, 1), persistent=False)
        self.classes: Classes | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Parts by configuration."""
        return {"clip_adapter": build_adapter(cfg.MODEL.CLIP_ADAPTER, tuning=True)}

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.pixel_mean.device

    def forward(self, batch: Sequence[dict[str, Any]]) -> Any:
        """The loss in training, else class logits.

        As published, pixels outside the mask get the mean colour after normalising, not before it: about 0.45 in each
        channel instead of 0.

        Args:
            batch: examples with ``image`` (3, H, W) in 0..255, all of one size, and ``instances`` with one
                ``gt_classes`` and one ``gt_masks`` (1, H, W) each.

        Returns:
            ``{"loss_cls": ...}``; or for each example ``{"classification": (1, C)}``.
        """
        images = torch.stack([example["image"].to(self.device) for example in batch]).float() / 255
        masks = torch.stack([_mask(example) for example in batch]).to(images)[:, None]  # (B, 1, H, W)
        normalised = (images - self.pixel_mean) / self.pixel_std
        regions = normalised * masks + (1 - masks) * self.pixel_mean
        features = self.clip_adapter.image_features(regions)
        class_features = self.clip_adapter.text_features(batch_classes(batch, self.classes).names)
        logits = similarity_logits(features, class_features)
        if not self.training:
            return [{"classification": row[None].detach()} for row in logits]
        wanted = torch.cat([example["instances"].gt_classes for example in batch]).to(self.device)
        return {"loss_cls": F.cross_entropy(logits, wanted)}


def _mask(example: dict[str, Any]) -> Tensor:
    masks = example["instances"].gt_masks
    return getattr(masks, "tensor", masks)[0]
