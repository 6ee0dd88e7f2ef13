"""Losses of a detection network's cells, for words of one's own: quality focal, distribution focal, and overlap.

Source of the losses: Generalized Focal Loss (arXiv 2006.04388), with NanoDet's weights; of the assignment: the dynamic
number of cells of a box, YOLOX (arXiv 2107.08430, section 2.1, SimOTA) without its cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss

from pomp_det.proposals.targets import level_points
from pomp_engine.backbones.nanodet import LEVELS, SIDE_BINS, side_lengths

OVERLAP_WEIGHT, SIDES_WEIGHT = 2.0, 0.25
_CANDIDATES = 10  # cells of a box, at most; the sum of their overlaps says how many it gets


def cell_losses(
    cells: Sequence[Tensor],
    boxes: Sequence[Tensor],
    classes: Sequence[Tensor],
    num_classes: int,
    rows: Sequence[int],
) -> dict[str, Tensor]:
    """Losses of a batch; other classes of the network than ``rows`` get none.

    Args:
        cells: (B, S + 44, H, W) of each level.
        boxes: (G_i, 4) corners of each image, in pixels.
        classes: (G_i,) places in ``rows``.
        num_classes: S.
        rows: the network's class of each word.

    Returns:
        ``loss_cell_class``, ``loss_cell_box`` and ``loss_cell_sides``.
    """
    flat = torch.cat([level.flatten(2).transpose(1, 2) for level in cells], dim=1).float()  # (B, M, S + 44)
    points = torch.cat(
        [level_points(level.shape[-2], level.shape[-1], 2**stage, level.device) for level, stage in _levels(cells)]
    )
    strides = torch.cat([points.new_full((level[0, 0].numel(), 1), 2**stage) for level, stage in _levels(cells)])
    columns = torch.as_tensor(list(rows), device=flat.device)
    focal, overlap, bins, weight = [flat.sum() * 0 for _ in range(4)]
    for image, image_boxes, image_classes in zip(flat, boxes, classes, strict=True):
        sides = side_lengths(image[:, num_classes:]) * strides  # (M, 4)
        predicted = torch.cat((points - sides[:, :2], points + sides[:, 2:]), dim=1)
        owner, quality = assign_cells(points, predicted.detach(), image_boxes)
        taken = (owner >= 0).nonzero().squeeze(1)
        target = image.new_zeros(len(image), len(columns))
        target[taken, image_classes[owner[taken]]] = quality[taken]
        logits = image[:, columns]
        focal = focal + quality_focal(logits, target).sum()
        if not len(taken):
            continue
        share, own = quality[taken], image_boxes[owner[taken]].to(image.dtype)
        weight = weight + share.sum()
        overlap = overlap + (share * generalized_box_iou_loss(predicted[taken], own)).sum()
        wanted = torch.cat((points[taken] - own[:, :2], own[:, 2:] - points[taken]), dim=1) / strides[taken]
        per_side = distribution_focal(image[taken, num_classes:].reshape(-1, SIDE_BINS), wanted.flatten())
        bins = bins + (share * per_side.view(-1, 4).mean(dim=1)).sum()
    total = weight.detach().clamp(min=1.0)
    return {
        "loss_cell_class": focal / total,
        "loss_cell_box": OVERLAP_WEIGHT * overlap / total,
        "loss_cell_sides": SIDES_WEIGHT * 4 * bins / total,
    }


@torch.no_grad()
def assign_cells(points: Tensor, predicted: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The box of each cell, and how well the cell's own prediction covers it.

    A box gets as many of the cells inside it as the ten best overlaps add up to, at least one; a cell of several boxes
    goes to the one that it overlaps most.

    Args:
        points: (M, 2) centres of the cells.
        predicted: (M, 4) their boxes.
        boxes: (G, 4).

    Returns:
        (M,) places among ``boxes``, -1 for none, and (M,) overlaps, at least a tenth for cells with a box.
    """
    owner = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    if not len(boxes):
        return owner, points.new_zeros(len(points))
    inside = ((points[None] > boxes[:, None, :2]) & (points[None] < boxes[:, None, 2:])).all(dim=2)  # (G, M)
    away = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, points.to(boxes.dtype))  # (G, M)
    every = torch.arange(len(boxes), device=boxes.device)
    inside[every, away.argmin(dim=1)] = True  # of a box between the centres the nearest
    overlap = box_iou(boxes, predicted.to(boxes.dtype))
    # Where predictions miss a box altogether, the cells near its middle learn it.
    order = (overlap - 1e-4 * away).masked_fill(~inside, -torch.inf)
    count = (overlap * inside).topk(min(_CANDIDATES, len(points)), dim=1).values.sum(dim=1).round().long().clamp(min=1)
    best = order.argsort(dim=1, descending=True)
    chosen = torch.zeros_like(inside)
    for box, number in enumerate(count.tolist()):
        chosen[box, best[box, :number]] = True
    chosen &= inside
    value, owners = order.masked_fill(~chosen, -torch.inf).max(dim=0)
    taken = value > -torch.inf
    owner[taken] = owners[taken]
    quality = overlap.gather(0, owners[None])[0].clamp(min=0.1)
    return owner, torch.where(taken, quality, torch.zeros_like(quality)).to(predicted.dtype)


def quality_focal(logits: Tensor, target: Tensor, power: float = 2.0) -> Tensor:
    """Quality focal loss (arXiv 2006.04388, equation 5) of each logit, for targets in 0..1."""
    return (logits.sigmoid() - target).abs() ** power * F.binary_cross_entropy_with_logits(
        logits, target, reduction="none"
    )


def distribution_focal(logits: Tensor, target: Tensor) -> Tensor:
    """Distribution focal loss (arXiv 2006.04388, equation 6) of each side.

    Args:
        logits: (n, 11) of the bins.
        target: (n,) in strides; what is outside 0..10 is the nearest of both.
    """
    target = target.clamp(0, SIDE_BINS - 1 - 1e-3)
    left = target.floor().long()
    right_weight = target - left
    return F.cross_entropy(logits, left, reduction="none") * (1 - right_weight) + (
        F.cross_entropy(logits, left + 1, reduction="none") * right_weight
    )


def _levels(cells: Sequence[Tensor]) -> list[tuple[Tensor, int]]:
    return list(zip(cells, LEVELS, strict=True))
