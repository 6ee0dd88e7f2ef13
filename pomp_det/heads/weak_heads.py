"""What the cascade and the C4 heads share: the choice between detection, box losses and weak losses."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from detectron2.config import configurable
from detectron2.modeling.roi_heads import ROIHeads
from detectron2.structures import ImageList, Instances
from torch import Tensor

from pomp_det.heads.weak_batches import WeakOptions, WeakTargets, top_proposals, zero_mask_loss


class WeakHeads(ROIHeads):
    """Heads that also learn from image labels and captions (Detic, arXiv 2201.02605); named before Detectron2's class.

    The other base class gives the constructor's other options, ``forward_with_given_boxes``, ``mask_on`` and
    ``mask_head``.
    """

    mask_on: bool
    mask_head: Any
    forward_with_given_boxes: Any

    @configurable
    def __init__(self, *, weak: WeakOptions, **options: Any) -> None:
        """
        Args:
            weak: options of batches without boxes.
            options: of Detectron2's class.
        """
        super().__init__(**options)
        self.weak = weak

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
        weak_targets: WeakTargets | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Detections, or in training the losses.

        Args:
            targets: with ``gt_boxes``, ``gt_classes`` and, where the data has them, ``gt_masks``.
            weak_targets: image labels or captions of a batch without boxes.
        """
        if not self.training:
            found = self._detect(features, proposals)
            return self.forward_with_given_boxes(features, found), {}
        if weak_targets is not None:
            proposals = top_proposals(proposals, self.weak)
            return proposals, self._weak_losses(features, proposals, weak_targets) | self._no_mask_loss()
        assert targets is not None, "training needs targets"
        proposals = self.label_and_sample_proposals(proposals, targets)
        has_masks = self.mask_on and any(each.has("gt_masks") for each in targets)
        losses = self._box_losses(features, proposals, targets, has_masks)
        return proposals, losses if has_masks else losses | self._no_mask_loss()

    @abstractmethod
    def _detect(self, features: dict[str, Tensor], proposals: list[Instances]) -> list[Instances]:
        """Detections of each image, without masks."""

    @abstractmethod
    def _box_losses(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances], has_masks: bool
    ) -> dict[str, Tensor]:
        """Losses of labelled proposals, and with ``has_masks`` the mask loss."""

    @abstractmethod
    def _weak_losses(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: WeakTargets
    ) -> dict[str, Tensor]:
        """Losses of a batch without boxes, box losses of 0 included."""

    def _no_mask_loss(self) -> dict[str, Tensor]:
        return zero_mask_loss(self.mask_head) if self.mask_on else {}
