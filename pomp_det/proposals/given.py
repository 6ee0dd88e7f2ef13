"""Regions from outside in the place of proposals: named by the heads, neither refined nor masked by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from pomp_det.box_masks import BOX_MASKS, GivenMasks
from pomp_det.heads.weak_heads import WeakHeads
from pomp_engine.data.proposal_files import ProposalFile
from prompt_core.errors import UserError

Masks = list[dict[str, Any]] | None


def given_proposals(
    file: ProposalFile, examples: Sequence[dict[str, Any]], images: ImageList
) -> tuple[list[Instances], list[Masks]]:
    """The regions of each photo as proposals of its resized image, and their masks in the photo.

    Args:
        examples: with ``image_id``, ``file_name`` or both; ``height`` and ``width`` of the photo where it was resized.
        images: as the network sees them. A photo without an entry has no regions.

    Returns:
        ``proposal_boxes`` and ``objectness_logits`` (the regions' scores, in 0..1) of each image; run lengths, or None.
    """
    proposals, masks = [], []
    for example, (height, width) in zip(examples, images.image_sizes, strict=True):
        photo = example.get("height", height), example.get("width", width)
        regions = file.regions(example, *photo)
        proposal = Instances((height, width))
        boxes = torch.zeros(0, 4) if regions is None else torch.from_numpy(regions.boxes)
        boxes = boxes * boxes.new_tensor([width / photo[1], height / photo[0]] * 2)
        proposal.proposal_boxes = Boxes(boxes.to(images.tensor.device))
        scores = torch.zeros(0) if regions is None else torch.from_numpy(regions.scores)
        proposal.objectness_logits = scores.to(images.tensor.device)
        proposals.append(proposal)
        masks.append(None if regions is None else regions.masks)
    return proposals, masks


def named_regions(
    heads: nn.Module, features: dict[str, Tensor], proposals: list[Instances], masks: Sequence[Masks]
) -> list[Instances]:
    """Detections on the proposals' own boxes, with the given masks; the heads' own where none are given.

    Scores, thresholds and the suppression within each class are the detector's.

    Raises:
        UserError: heads that are not this package's.
    """
    if not isinstance(heads, WeakHeads):
        raise UserError(
            f"MODEL.PROPOSALS.FILE: {type(heads).__name__} cannot name given regions; MODEL.ROI_HEADS.NAME must be "
            "DeticCascadeROIHeads or CustomRes5ROIHeads"
        )
    stages, boxes = heads.region_scores(features, proposals, refine=False)
    found, kept = heads.last_predictor.detect(stages, boxes, proposals)
    if any(of_image is None for of_image in masks):
        found = heads.forward_with_given_boxes(features, found)
    for instances, rows, of_image in zip(found, kept, masks, strict=True):
        if of_image is not None:
            if instances.has("pred_masks"):
                instances.remove("pred_masks")
            instances.set(BOX_MASKS, GivenMasks(of_image, rows))
    return found
