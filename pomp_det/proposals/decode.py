"""From heat maps and box sides to proposals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import nms


def level_candidates(
    points: Tensor, stride: int, logits: Tensor, sides: Tensor, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Boxes (K, 4) in pixels and scores (K,) of one level of one image, K at most ``limit``.

    Args:
        points: (L, 2) cell centres in pixels.
        logits: (L,) of the heat map; cells above ``threshold`` after the sigmoid are candidates.
        sides: (L, 4) distances to the box sides in strides.

    The score of a proposal is the square root of its heat, as published.
    """
    heat = logits.sigmoid()
    candidates = (heat > threshold).nonzero().squeeze(1)
    if len(candidates) > limit:
        candidates = candidates[heat[candidates].topk(limit, sorted=False).indices]
    points, sides = points[candidates], sides[candidates] * stride
    corner = points - sides[:, :2]
    # A box without width or height would have no region to pool features from.
    opposite = torch.maximum(points + sides[:, 2:], corner + 0.01)
    return torch.cat((corner, opposite), dim=1), heat[candidates].sqrt()


def select_proposals(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_size: tuple[int, int],
    nms_threshold: float | None,
    limit: int,
    keep_ties: bool = True,
) -> Instances:
    """Proposals of one image from its levels' candidates, by falling score.

    Args:
        nms_threshold: boxes that overlap a better one by more are dropped; None keeps all.
        limit: number of proposals.
        keep_ties: as published, every proposal that scores as much as the last one within the limit stays.

    Returns:
        Instances with ``proposal_boxes``, not clipped to the image, and ``objectness_logits``. The latter holds the
        score, a probability, as in the published code.
    """
    all_boxes, all_scores = torch.cat(list(boxes)), torch.cat(list(scores))
    if nms_threshold is not None:
        keep = nms(all_boxes.float(), all_scores.float(), nms_threshold)
    else:
        keep = all_scores.sort(descending=True, stable=True).indices
    if len(keep) > limit:
        last = all_scores[keep[limit - 1]]
        keep = keep[all_scores[keep] >= last] if keep_ties else keep[:limit]
    proposals = Instances(image_size)
    proposals.proposal_boxes = Boxes(all_boxes[keep])
    proposals.objectness_logits = all_scores[keep]
    return proposals
