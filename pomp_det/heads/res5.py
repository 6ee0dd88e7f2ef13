"""C4 heads with the zero-shot classifier: the open-vocabulary COCO configurations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, build_mask_head
from detectron2.modeling.roi_heads import Res5ROIHeads, select_foreground_proposals
from detectron2.structures import Instances
from torch import Tensor

from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from pomp_det.heads.fused_scores import ClassProbabilities
from pomp_det.heads.inference import StageScores
from pomp_det.heads.sampled_classes import SampledClasses
from pomp_det.heads.weak_batches import (
    WeakTargets,
    weak_losses,
    weighted_mask_head,
    with_masks_only,
    without_classes,
    zero_weak_losses,
)
from pomp_det.heads.weak_heads import WeakHeads, weak_heads_options


@ROI_HEADS_REGISTRY.register()
class CustomRes5ROIHeads(WeakHeads, Res5ROIHeads):
    """Detectron2's C4 heads whose predictor classifies against a frozen class matrix (Detic, arXiv 2201.02605)."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        options = super().from_config(without_classes(cfg), input_shape)
        channels = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 8
        options["num_classes"] = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        options["box_predictor"] = DeticFastRCNNOutputLayers(cfg, ShapeSpec(channels=channels, height=1, width=1))
        if cfg.MODEL.MASK_ON:
            size = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
            shape = ShapeSpec(channels=channels, width=size, height=size)
            options["mask_head"] = weighted_mask_head(build_mask_head(cfg, shape), cfg)
        return options | weak_heads_options(cfg)

    def region_embeddings(self, features: dict[str, Tensor], regions: list[Instances]) -> dict[str, Tensor]:
        return {"": self.box_predictor.embed(self._region_maps(features, regions).mean(dim=[2, 3]))}

    @property
    def last_predictor(self) -> DeticFastRCNNOutputLayers:
        return self.box_predictor

    def region_scores(
        self, features: dict[str, Tensor], proposals: list[Instances], refine: bool = True
    ) -> tuple[list[StageScores | ClassProbabilities | Tensor], Sequence[Tensor]]:
        predictor = self.box_predictor
        box_features = self._region_maps(features, proposals).mean(dim=[2, 3])
        scores, shifts = (predictor.stage_scores if predictor.gives_factors else predictor)(box_features)
        if not refine:
            return [scores], [image.proposal_boxes.tensor for image in proposals]
        return [scores], predictor.predict_boxes((None, shifts), proposals)

    def _box_losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances],
        has_masks: bool,
        sampled: SampledClasses | None,
    ) -> dict[str, Tensor]:
        maps = self._region_maps(features, proposals)
        predictions = self.box_predictor(maps.mean(dim=[2, 3]), sampled=sampled)
        losses = self.box_predictor.losses(predictions, proposals, sampled) | zero_weak_losses(predictions, self.weak)
        if has_masks:
            foreground, chosen = select_foreground_proposals(proposals, self.num_classes)
            masked = [rows & image.has("gt_masks") for rows, image in zip(chosen, foreground, strict=True)]
            losses |= self.mask_head(maps[torch.cat(masked)], with_masks_only(foreground))
        return losses

    def _weak_losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: WeakTargets,
        sampled: SampledClasses | None,
    ) -> dict[str, Tensor]:
        box_features = self._region_maps(features, proposals).mean(dim=[2, 3])
        predictions = self.box_predictor(box_features, sampled=sampled)
        return weak_losses(self.box_predictor, box_features, predictions, proposals, targets, self.weak)

    def _region_maps(self, features: dict[str, Tensor], proposals: list[Instances]) -> Tensor:
        """Region features (R, C, h, w) after the fifth stage."""
        boxes = [image.proposal_boxes for image in proposals]
        return self._shared_roi_transform([features[name] for name in self.in_features], boxes)
