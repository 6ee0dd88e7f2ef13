"""Cascade heads with the zero-shot classifier, for boxes and for image labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads, _ScaleGradient
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
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
from prompt_core.errors import UserError


@ROI_HEADS_REGISTRY.register()
class DeticCascadeROIHeads(WeakHeads, CascadeROIHeads):
    """Cascade R-CNN (arXiv 1712.00726) whose stages classify against a frozen class matrix (Detic, arXiv 2201.02605).

    A score is the mean over the stages, mixed with the proposal's score; boxes are those of the last stage.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return super().from_config(cfg, input_shape) | weak_heads_options(cfg)

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
            raise UserError("DeticCascadeROIHeads needs MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True")
        first, ious = cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0], list(cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS)
        if first != ious[0] or len(ious) != len(cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS):
            raise UserError(
                f"ROI_BOX_CASCADE_HEAD.IOUS is {ious}; it must begin with ROI_HEADS.IOU_THRESHOLDS ({first}) and have "
                "one value for each of BBOX_REG_WEIGHTS"
            )
        options = super()._init_box_head(without_classes(cfg), input_shape)
        weights = cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS
        options["box_predictors"] = [
            DeticFastRCNNOutputLayers(
                cfg, head.output_shape, box2box_transform=Box2BoxTransform(weights=tuple(regression))
            )
            for head, regression in zip(options["box_heads"], weights, strict=True)
        ]
        return options

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        options = super()._init_mask_head(cfg, input_shape)
        if options:
            weighted_mask_head(options["mask_head"], cfg)
        return options

    def stage_features(self, features: Sequence[Tensor], proposals: Sequence[Instances], stage: int) -> Tensor:
        """Region features (R, D) of a stage, for the proposals of all images."""
        return self.box_head[stage](self.pooled(features, proposals))

    def pooled(self, features: Sequence[Tensor], proposals: Sequence[Instances]) -> Tensor:
        """What the heads of a stage see of the proposals of all images."""
        pooled = self.box_pooler(features, [image.proposal_boxes for image in proposals])
        if self.training:
            # The stages' losses add up; the shared features below them see the mean.
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
        return pooled

    def stage_scores(
        self, features: Sequence[Tensor], proposals: list[Instances], stage: int
    ) -> tuple[StageScores | ClassProbabilities | Tensor, Tensor]:
        """Class scores and box shifts (R, 4) of a stage."""
        predictor = self.box_predictor[stage]
        box_features = self.stage_features(features, proposals, stage)
        scores: tuple[StageScores | Tensor, Tensor] = (
            predictor.stage_scores if predictor.gives_factors else predictor
        )(box_features)
        return scores

    def _refined(self, stage: int, shifts: Tensor, proposals: list[Instances]) -> list[Instances]:
        """The boxes that a stage's shifts (R, 4) make of its proposals: proposals of the next stage."""
        boxes = self.box_predictor[stage].predict_boxes((None, shifts), proposals)
        return self._create_proposals_from_boxes(boxes, [image.image_size for image in proposals])

    def _box_losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances],
        has_masks: bool,
        sampled: SampledClasses | None,
    ) -> dict[str, Tensor]:
        # The mask head sees the first stage's proposals, as Detectron2's cascade does.
        losses: dict[str, Tensor] = self._forward_mask(features, with_masks_only(proposals)) if has_masks else {}
        maps = [features[name] for name in self.box_in_features]
        for stage, predictor in enumerate(self.box_predictor):
            predictions = predictor(self.stage_features(maps, proposals, stage), sampled=sampled)
            with get_event_storage().name_scope(f"stage{stage}"):
                stage_losses = predictor.losses(predictions, proposals, sampled)
            stage_losses |= zero_weak_losses(predictions, self.weak)
            losses |= {f"{name}_stage{stage}": loss for name, loss in stage_losses.items()}
            if stage + 1 < self.num_cascade_stages:
                proposals = self._refined(stage, predictions[1], proposals)
                proposals = self._match_and_label_boxes(proposals, stage + 1, targets)
        return losses

    def _weak_losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: WeakTargets,
        sampled: SampledClasses | None,
    ) -> dict[str, Tensor]:
        maps = [features[name] for name in self.box_in_features]
        losses: dict[str, Tensor] = {}
        for stage, predictor in enumerate(self.box_predictor):
            box_features = self.stage_features(maps, proposals, stage)
            predictions = predictor(box_features, sampled=sampled)
            stage_losses = weak_losses(predictor, box_features, predictions, proposals, targets, self.weak)
            losses |= {f"{name}_stage{stage}": loss for name, loss in stage_losses.items()}
            if stage + 1 < self.num_cascade_stages:
                proposals = self._refined(stage, predictions[1], proposals)
        return losses

    def region_embeddings(self, features: dict[str, Tensor], regions: list[Instances]) -> dict[str, Tensor]:
        maps = [features[name] for name in self.box_in_features]
        return {
            f"_stage{stage}": predictor.embed(self.stage_features(maps, regions, stage))
            for stage, predictor in enumerate(self.box_predictor)
        }

    @property
    def last_predictor(self) -> DeticFastRCNNOutputLayers:
        return self.box_predictor[-1]

    def region_scores(
        self, features: dict[str, Tensor], proposals: list[Instances], refine: bool = True
    ) -> tuple[list[StageScores | ClassProbabilities | Tensor], Sequence[Tensor]]:
        maps = [features[name] for name in self.box_in_features]
        stages: list[Any] = []
        refined = proposals
        for stage in range(self.num_cascade_stages):
            scores, shifts = self.stage_scores(maps, refined, stage)
            stages.append(scores)
            if refine and stage + 1 < self.num_cascade_stages:
                refined = self._refined(stage, shifts, refined)
        if all(isinstance(scores, StageScores) for scores in stages):
            stages = self.shared_classes(stages)
        if not refine:
            return stages, [image.proposal_boxes.tensor for image in proposals]
        return stages, self.last_predictor.predict_boxes((None, shifts), refined)
