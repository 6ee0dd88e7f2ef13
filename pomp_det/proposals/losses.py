"""Losses of the class-agnostic CenterNet: focal loss of the heat map and generalised IoU of the boxes."""

from __future__ import annotations

import torch
from torch import Tensor


def heatmap_focal_loss(
    logits: Tensor,
    target: Tensor,
    positives: Tensor,
    alpha: float = 0.25,
    beta: float = 4.0,
    gamma: float = 2.0,
    clamp: float = 1e-4,
    ignore_above: float = -1.0,
) -> tuple[Tensor, Tensor]:
    """Sums of the positive and of the negative part (CornerNet, arXiv 1808.01244, with the balance ``alpha``).

    Args:
        logits: (M,) of the heat map.
        target: (M,) in 0..1; a negative counts ``(1 - target) ** beta``.
        positives: (P,) indices of positive cells; one that is the centre of two objects counts twice.
        alpha: weight of positives, ``1 - alpha`` of negatives; below 0 neither is weighted.
        clamp: probabilities stay in ``clamp .. 1 - clamp``.
        ignore_above: negatives at or above this probability are left out; 0 or less keeps them all.
    """
    probability = logits.sigmoid().clamp(min=clamp, max=1 - clamp)
    at_positives = probability[positives]
    positive = at_positives.log() * (1 - at_positives).pow(gamma)
    negative = (1 - probability).log() * probability.pow(gamma) * (1 - target).pow(beta)
    if ignore_above > 0:
        negative = negative * (probability < ignore_above)
    positive_loss, negative_loss = -positive.sum(), -negative.sum()
    if alpha >= 0:
        positive_loss, negative_loss = alpha * positive_loss, (1 - alpha) * negative_loss
    return positive_loss, negative_loss


def side_distance_loss(predicted: Tensor, target: Tensor, kind: str = "giou") -> Tensor:
    """Loss (R,) of boxes given as left, top, right, bottom distances (R, 4) from one location.

    ``iou`` is ``-log IoU``, ``linear_iou`` ``1 - IoU`` and ``giou`` ``1 - GIoU`` (arXiv 1902.09630). As in the
    published code 1 is added to intersection and union inside the IoU, so distances in strides of small boxes count
    less, and the loss stays finite for empty boxes.
    """
    area = (predicted[:, 0] + predicted[:, 2]) * (predicted[:, 1] + predicted[:, 3])
    target_area = (target[:, 0] + target[:, 2]) * (target[:, 1] + target[:, 3])
    inner = torch.minimum(predicted, target)
    outer = torch.maximum(predicted, target)
    intersection = (inner[:, 0] + inner[:, 2]) * (inner[:, 1] + inner[:, 3])
    hull = (outer[:, 0] + outer[:, 2]) * (outer[:, 1] + outer[:, 3])
    union = area + target_area - intersection
    iou = (intersection + 1) / (union + 1)
    if kind == "iou":
        return -iou.log()
    if kind == "linear_iou":
        return 1 - iou
    return 1 - (iou - (hull - union) / hull)
