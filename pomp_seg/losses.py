"""The matching of mask proposals to regions, and the losses (MaskFormer, arXiv 2107.06278, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from prompt_core.towers.placement import upload

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
    """Weights of the two parts of cost and loss that are about masks; that of the class weighs 1."""

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
    costs = [
        matching_cost(*image, weights).flatten() if len(image[2].classes) else masks.new_zeros(0, dtype=torch.float32)
        for image in zip(logits, masks, targets, strict=True)
    ]
    pairs = []
    # One copy from the device, for which the host waits.
    of_each = torch.cat(costs).cpu().split([len(cost) for cost in costs])
    for cost, truth in zip(of_each, targets, strict=True):
        table = cost.view(logits.shape[1], len(truth.classes))  # (Q, R)
        # scipy refuses NaN; any match will do then, and its loss stops the run.
        queries, regions = linear_sum_assignment(table.nan_to_num().numpy())
        pairs.append((torch.as_tensor(queries, dtype=torch.int64), torch.as_tensor(regions, dtype=torch.int64)))
    return pairs


def matching_cost(logits: Tensor, masks: Tensor, targets: Targets, weights: CostWeights) -> Tensor:
    """Cost (Q, R) of matching query q to region r.

    The focal and dice parts are computed at the resolution of the predicted masks, to which the regions are reduced by
    the nearest pixel.

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
        - probability
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


def dice_loss(given: Tensor, wanted: Tensor) -> Tensor:
    """Dice losses (M,) of mask logits (M, P) against binary masks (M, P), with one pixel of smoothing."""
    probability = given.sigmoid()
    overlap = 2 * (probability * wanted).sum(dim=1)
    return 1 - (overlap + 1) / (probability.sum(dim=1) + wanted.sum(dim=1) + 1)


class MaskProposalLoss(nn.Module):
    """Cross entropy of classes, focal and dice loss of masks, over the matched queries of each supervised layer.

    Attributes:
        empty_weight: (C + 1,) weights of the cross entropy; queries without a region count less.
    """

    empty_weight: Tensor

    def __init__(self, num_classes: int, no_object_weight: float, mask_weight: float, dice_weight: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.weights = CostWeights(mask_weight, dice_weight)
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)

    def forward(
        self, logits: Sequence[Tensor], masks: Sequence[Tensor], targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """Weighted losses: ``loss_ce``, ``loss_mask``, ``loss_dice`` of the last layer, with ``_0``, … of the others.

        Args:
            logits: class logits (B, Q, C + 1) of each supervised layer, the last one last.
            masks: mask logits (B, Q, H, W) of each.
            targets: of each of the B images.
        """
        count = self._number_of_regions(targets, masks[-1].device)
        losses: dict[str, Tensor] = {}
        last = len(logits) - 1
        for layer in [last, *range(last)]:
            suffix = "" if layer == last else f"_{layer}"
            device = masks[layer].device
            pairs = [
                (upload(queries, device), upload(regions, device))
                for queries, regions in match(logits[layer], masks[layer], targets, self.weights)
            ]
            focal, dice = self._mask_losses(masks[layer], targets, pairs, count)
            losses[f"loss_ce{suffix}"] = self._class_loss(logits[layer], targets, pairs)
            losses[f"loss_mask{suffix}"] = self.weights.mask * focal
            losses[f"loss_dice{suffix}"] = self.weights.dice * dice
        return losses

    def _class_loss(self, logits: Tensor, targets: Sequence[Targets], pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        wanted = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        for row, (truth, (queries, regions)) in enumerate(zip(targets, pairs, strict=True)):
            wanted[row, queries] = truth.classes[regions]
        return F.cross_entropy(logits.float().transpose(1, 2), wanted, self.empty_weight)

    def _mask_losses(
        self, masks: Tensor, targets: Sequence[Targets], pairs: Sequence[tuple[Tensor, Tensor]], count: float
    ) -> tuple[Tensor, Tensor]:
        given = torch.cat([of_image[queries] for of_image, (queries, _) in zip(masks, pairs, strict=True)])
        if not len(given):
            nothing = masks.sum() * 0.0  # keeps the masks in the graph, which gradient reduction requires
            return nothing, nothing
        wanted = torch.cat([truth.masks[regions] for truth, (_, regions) in zip(targets, pairs, strict=True)]).to(
            given
        )  # (M, H, W)
        given = F.interpolate(given[:, None], size=wanted.shape[-2:], mode="bilinear", align_corners=False)
        given, wanted = given.flatten(1), wanted.flatten(1)  # (M, P)
        focal = sigmoid_focal_loss(given, wanted, alpha=ALPHA, gamma=GAMMA).mean(dim=1).sum()
        return focal / count, dice_loss(given, wanted).sum() / count

    @staticmethod
    def _number_of_regions(targets: Sequence[Targets], device: torch.device) -> float:
        """Regions per process, at least one."""
        own = float(sum(len(truth.classes) for truth in targets))
        if comm.get_world_size() == 1:
            return max(own, 1.0)
        total = torch.as_tensor([own], dtype=torch.float32, device=device)
        torch.distributed.all_reduce(total)
        return max(float(total) / comm.get_world_size(), 1.0)
