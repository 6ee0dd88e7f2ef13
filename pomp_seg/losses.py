"""Losses of matched mask proposals (MaskFormer, arXiv 2107.06278, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from pomp_seg.matching import ALPHA, GAMMA, CostWeights, Targets, match


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

    def __init__(
        self,
        num_classes: int,
        no_object_weight: float,
        mask_weight: float,
        dice_weight: float,
        label_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.weights = CostWeights(label_weight, mask_weight, dice_weight)
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
            pairs = match(logits[layer], masks[layer], targets, self.weights)
            focal, dice = self._mask_losses(masks[layer], targets, pairs, count)
            losses[f"loss_ce{suffix}"] = self.weights.label * self._class_loss(logits[layer], targets, pairs)
            losses[f"loss_mask{suffix}"] = self.weights.mask * focal
            losses[f"loss_dice{suffix}"] = self.weights.dice * dice
        return losses

    def _class_loss(self, logits: Tensor, targets: Sequence[Targets], pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        wanted = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        for row, (own, (queries, regions)) in enumerate(zip(targets, pairs, strict=True)):
            wanted[row, queries.to(wanted.device)] = own.classes[regions.to(wanted.device)]
        return F.cross_entropy(logits.float().transpose(1, 2), wanted, self.empty_weight)

    def _mask_losses(
        self, masks: Tensor, targets: Sequence[Targets], pairs: Sequence[tuple[Tensor, Tensor]], count: float
    ) -> tuple[Tensor, Tensor]:
        given = torch.cat([own[queries.to(own.device)] for own, (queries, _) in zip(masks, pairs, strict=True)])
        if not len(given):
            nothing = masks.sum() * 0.0  # keeps the masks in the graph, which gradient reduction counts on
            return nothing, nothing
        wanted = torch.cat(
            [own.masks[regions.to(own.masks.device)] for own, (_, regions) in zip(targets, pairs, strict=True)]
        ).to(given)  # (M, H, W)
        given = F.interpolate(given[:, None], size=wanted.shape[-2:], mode="bilinear", align_corners=False)
        given, wanted = given.flatten(1), wanted.flatten(1)  # (M, P)
        focal = sigmoid_focal_loss(given, wanted, alpha=ALPHA, gamma=GAMMA).mean(dim=1).sum()
        return focal / count, dice_loss(given, wanted).sum() / count

    @staticmethod
    def _number_of_regions(targets: Sequence[Targets], device: torch.device) -> float:
        """Regions per process, at least one."""
        total = torch.as_tensor([sum(len(own.classes) for own in targets)], dtype=torch.float32, device=device)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(total)
        return max(float(total) / comm.get_world_size(), 1.0)
