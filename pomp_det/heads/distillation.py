"""Distillation of CLIP's image embeddings into the box heads (ViLD-image: Gu et al., arXiv 2104.13921)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from detectron2.structures import Boxes, Instances
from torch import Tensor

from pomp_det.data.mapper import SMALLEST_SIDE
from pomp_det.heads.inference import clip_boxes


class Distillation(NamedTuple):
    """The targets of the region embeddings of a batch.

    Attributes:
        regions: ``proposal_boxes`` (R_i, 4) of each image.
        embeddings: (R, E) unit-norm image embeddings of the regions of all images.
    """

    regions: list[Instances]
    embeddings: Tensor


def best_regions(proposals: Sequence[Instances], limit: int) -> list[Instances]:
    """The best proposals of each image that are not tiny, clipped to it, without gradient.

    Args:
        proposals: by falling score, near-duplicates already suppressed.
        limit: regions of an image.
    """
    chosen = []
    for image in proposals:
        boxes = clip_boxes(image.proposal_boxes.tensor.detach(), image.image_size)
        usable = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_SIDE).all(dim=1)
        chosen.append(Instances(image.image_size, proposal_boxes=Boxes(boxes[usable][:limit])))
    return chosen


def no_regions(proposals: Sequence[Instances]) -> Distillation:
    """For a batch without distillation: its losses exist and are 0."""
    boxes = [image.proposal_boxes.tensor.detach()[:0] for image in proposals]
    regions = [
        Instances(image.image_size, proposal_boxes=Boxes(none)) for image, none in zip(proposals, boxes, strict=True)
    ]
    return Distillation(regions, boxes[0].new_zeros(0, 0))


def distillation_loss(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Mean over regions of the L1 distance of unit-norm embeddings (R, E), summed over their width.

    0, with the graph, when there are no regions. Source: ViLD, whose loss is the norm, not its mean over the width.
    """
    if len(embeddings) == 0:
        return embeddings.sum() * 0
    return (embeddings - targets).abs().sum(dim=1).mean()
