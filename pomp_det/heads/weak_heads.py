"""The common part of the cascade and the C4 heads: detection, box losses or weak losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling.roi_heads import ROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from pomp_det.heads.distillation import Distillation, distillation_loss, no_regions
from pomp_det.heads.fused_scores import ClassProbabilities
from pomp_det.heads.inference import SharedClasses, StageScores
from pomp_det.heads.sampled_classes import ClassSampler, SampledClasses
from pomp_det.heads.weak_batches import WeakOptions, WeakTargets, top_proposals, zero_mask_loss


class WeakHeads(ROIHeads):
    """Heads that also learn from image labels and captions (Detic, arXiv 2201.02605); named before Detectron2's class.

    The other base class gives the constructor's other options, its own ``forward_with_given_boxes``, ``mask_on`` and
    ``mask_head``.
    """

    mask_on: bool
    mask_head: Any

    @configurable
    def __init__(
        self,
        *,
        weak: WeakOptions,
        class_sampler: ClassSampler | None = None,
        distillation_weight: float = 0.0,
        **options: Any,
    ) -> None:
        """
        Args:
            weak: options of batches without boxes.
            class_sampler: chooses the classes of a training step; None for all.
            distillation_weight: of the distance to image embeddings of regions; with 0 there is no such loss.
            options: of Detectron2's class.
        """
        super().__init__(**options)
        self.shared_classes = SharedClasses()
        self.weak = weak
        self.class_sampler = class_sampler
        self.distillation_weight = distillation_weight

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
        weak_targets: WeakTargets | None = None,
        distillation: Distillation | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Detections, or in training the losses.

        Args:
            targets: with ``gt_boxes``, ``gt_classes`` and, where the data has them, ``gt_masks``.
            weak_targets: image labels or captions of a batch without boxes.
            distillation: image embeddings of regions; None for a batch without distillation.
        """
        if not self.training:
            detections = self._detect(features, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        extra = self._distillation_losses(features, proposals, distillation)
        sampled = self._sampled_classes(targets, weak_targets)
        if weak_targets is not None:
            proposals = top_proposals(proposals, self.weak)
            if sampled is not None:
                weak_targets = weak_targets._replace(labels=sampled.labels(weak_targets.labels))
            losses = self._weak_losses(features, proposals, weak_targets, sampled)
            return proposals, losses | self._no_mask_loss() | extra
        assert targets is not None, "training needs targets"
        proposals = self.label_and_sample_proposals(proposals, targets)
        has_masks = self.mask_on and any(image.has("gt_masks") for image in targets)
        losses = self._box_losses(features, proposals, targets, has_masks, sampled) | extra
        return proposals, losses if has_masks else losses | self._no_mask_loss()

    def _sampled_classes(
        self, targets: list[Instances] | None, weak_targets: WeakTargets | None
    ) -> SampledClasses | None:
        """The classes of this step, the same for all stages."""
        if self.class_sampler is None:
            return None
        assert targets is not None, "training needs targets"
        labels = torch.cat([image.gt_classes for image in targets])
        if weak_targets is not None:
            labels = labels.new_tensor([label for image in weak_targets.labels for label in image])
        return self.class_sampler.sample(labels, self.num_classes, boxes=weak_targets is None)

    @abstractmethod
    def region_scores(
        self, features: dict[str, Tensor], proposals: list[Instances], refine: bool = True
    ) -> tuple[list[StageScores | ClassProbabilities | Tensor], Sequence[Tensor]]:
        """Class scores and boxes of the proposals: what detections are chosen from.

        Args:
            proposals: of each image, with ``proposal_boxes``.
            refine: False takes the proposals' boxes as they are: every stage scores them, and they come back unchanged.

        Returns:
            of each stage, of all images together, :class:`StageScores` or logits (R, C + 1), as the predictor's
            ``gives_factors`` says, or :class:`ClassProbabilities`; and the last stage's boxes (R_i, 4) of each image,
            in pixels, not yet clipped.
        """

    @property
    @abstractmethod
    def last_predictor(self) -> DeticFastRCNNOutputLayers:
        """The predictor of the last stage, which makes the detections."""

    def _detect(self, features: dict[str, Tensor], proposals: list[Instances]) -> list[Instances]:
        """Detections of each image, without masks."""
        proposals = self.last_predictor.promising(proposals)
        return self.last_predictor.detect(*self.region_scores(features, proposals), proposals)[0]

    def forward_with_given_boxes(self, features: dict[str, Tensor], instances: list[Instances]) -> list[Instances]:
        """Detections with their masks; those on the same box share one, unless each class has its own.

        With thousands of words a box often has several, and its mask costs more than all its words.

        Args:
            instances: with ``pred_boxes`` and ``pred_classes``.
        """
        forward: Any = super().forward_with_given_boxes
        if not self.mask_on or self.mask_head.predictor.out_channels > 1:
            detected: list[Instances] = forward(features, instances)
            return detected
        boxes, places = zip(
            *(image.pred_boxes.tensor.unique(dim=0, return_inverse=True) for image in instances), strict=True
        )
        different = [
            Instances(
                image.image_size, pred_boxes=Boxes(of_image), pred_classes=of_image.new_zeros(len(of_image)).long()
            )
            for image, of_image in zip(instances, boxes, strict=True)
        ]
        for image, made, place in zip(instances, forward(features, different), places, strict=True):
            image.pred_masks = made.pred_masks[place]
        return instances

    @abstractmethod
    def _box_losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances],
        has_masks: bool,
        sampled: SampledClasses | None,
    ) -> dict[str, Tensor]:
        """Losses of labelled proposals, and with ``has_masks`` the mask loss.

        Args:
            sampled: the only classes to score; None for all.
        """

    @abstractmethod
    def _weak_losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: WeakTargets,
        sampled: SampledClasses | None,
    ) -> dict[str, Tensor]:
        """Losses of a batch without boxes, box losses of 0 included.

        Args:
            sampled: the only classes to score, whose columns the labels are then; None for all.
        """

    @abstractmethod
    def region_embeddings(self, features: dict[str, Tensor], regions: list[Instances]) -> dict[str, Tensor]:
        """Unit-norm embeddings (R, E) of the regions of all images, by the ending of the stage's losses."""

    def _distillation_losses(
        self, features: dict[str, Tensor], proposals: list[Instances], distillation: Distillation | None
    ) -> dict[str, Tensor]:
        """A loss of each stage, on the same regions.

        ViLD has one head. Here a class score is the mean over the stages, so a stage that were not distilled would
        score the novel classes by what it learned of the base classes alone. The regions are the proposals of every
        stage: image embeddings of the boxes that a stage refines would cost a run of the image tower each.
        """
        if self.distillation_weight == 0:
            return {}
        if distillation is None:
            distillation = no_regions(proposals)
        return {
            f"loss_distillation{ending}": self.distillation_weight
            * distillation_loss(embeddings, distillation.embeddings)
            for ending, embeddings in self.region_embeddings(features, distillation.regions).items()
        }

    def _no_mask_loss(self) -> dict[str, Tensor]:
        return zero_mask_loss(self.mask_head) if self.mask_on else {}


def weak_heads_options(cfg: CfgNode) -> dict[str, Any]:
    """Keywords of :class:`WeakHeads`.

    Raises:
        UserError: options that do not go together.
    """
    return {
        "weak": WeakOptions.from_config(cfg),
        "class_sampler": ClassSampler.from_config(cfg),
        "distillation_weight": cfg.MODEL.ROI_BOX_HEAD.DISTILLATION_WEIGHT,
    }
