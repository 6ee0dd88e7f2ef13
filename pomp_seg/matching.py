"""Which mask proposal answers for which region of the ground truth (MaskFormer, arXiv 2107.06278, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss (arXiv 1708.02002)


@dataclass(frozen=True)
class Targets:
    """Regions of one image.

    Attributes:
        classes: (R,) int64.
        masks: (R, H, W) bool, padded like the batch.
    """

    classes: Tensor
    masks: Tensor


@dataclass(frozen=True)
class CostWeights:
    """Weights of the three parts of the cost."""

    label: float = 1.0
    mask: float = 20.0
    dice: float = 1.0


@torch.no_grad()
def match(
    logits: Tensor, masks: Tensor, targets: Sequence[Targets], weights: CostWeights
) -> list[tuple[Tensor, Tensor]]:
    """The cheapest one-to-one match of each image.

    Args:
        logits: class logits (B, Q, C + 1).
        masks: mask logits (B, Q, H, W).

    Returns:
        For each image the matched queries and regions, two int64 tensors of one length on the CPU.
    """
    pairs = []
    for own_logits, own_masks, own in zip(logits, masks, targets, strict=True):
        if not len(own.classes):
            nothing = torch.empty(0, dtype=torch.int64)
            pairs.append((nothing, nothing))
            continue
        cost = matching_cost(own_logits, own_masks, own, weights).cpu()
        # scipy refuses NaN; any match will do then, and the loss that it gives stops the run.
        queries, regions = linear_sum_assignment(cost.nan_to_num().numpy())
        pairs.append((torch.as_tensor(queries, dtype=torch.int64), torch.as_tensor(regions, dtype=torch.int64)))
    return pairs


def matching_cost(logits: Tensor, masks: Tensor, targets: Targets, weights: CostWeights) -> Tensor:
    """Cost (Q, R) of answering region r with query q.

    The focal and dice parts are taken at the resolution of the predicted masks, which the regions are shrunk to by the
    nearest pixel.

    Args:
        logits: (Q, C + 1).
        masks: logits (Q, H, W).
    """
    probability = logits.float().softmax(dim=-1)[:, targets.classes]  # (Q, R)
    wanted = F.interpolate(targets.masks[None].float(), size=masks.shape[-2:], mode="nearest")[0].flatten(1)
    given = masks.float().flatten(1)  # (Q, P)
    return (
        weights.mask * pairwise_focal_cost(given, wanted)
        + weights.dice * pairwise_dice_cost(given, wanted)
        - weights.label * probability
    )


def pairwise_focal_cost(given: Tensor, wanted: Tensor) -> Tensor:
    """Sigmoid focal loss, averaged over P pixels, of each pair of logits (Q, P) and binary masks (R, P): (Q, R)."""
    probability = given.sigmoid()
    inside = ALPHA * (1 - probability) ** GAMMA * F.softplus(-given)  # the loss where the region is
    outside = (1 - ALPHA) * probability**GAMMA * F.softplus(given)
    return (inside @ wanted.T + outside @ (1 - wanted).T) / given.shape[1]


def pairwise_dice_cost(given: Tensor, wanted: Tensor) -> Tensor:
    """Dice loss with one pixel of smoothing of every pair of mask logits (Q, P) and binary masks (R, P): (Q, R)."""
    probability = given.sigmoid()
    overlap = 2 * probability @ wanted.T
    total = probability.sum(dim=1)[:, None] + wanted.sum(dim=1)[None]
    return 1 - (overlap + 1) / (total + 1)
