"""From class scores and boxes to detections: the plain reference, and a fast version for large vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import nms


class StageScores(NamedTuple):
    """What a stage's class logits are the product of.

    Attributes:
        projected: (R, E) region features in the classes' space.
        weight: (E, C + 1) class features in columns, the background last.
        bias: a scalar added to each logit, or None.
    """

    projected: Tensor
    weight: Tensor
    bias: Tensor | None = None


def mixed_scores(probabilities: Sequence[Tensor], proposal_scores: Tensor | None) -> Tensor:
    """Mean over stages, then the geometric mean with the proposal score: ``sqrt(p * o)``.

    Args:
        probabilities: a tensor of each stage, all of one shape.
        proposal_scores: shaped to broadcast against them; None leaves the mean as it is.
    """
    mean = sum(probabilities[1:], start=probabilities[0]) * (1.0 / len(probabilities))
    return mean if proposal_scores is None else (mean * proposal_scores).sqrt()


def reference_detections(
    scores: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    score_threshold: float,
    nms_threshold: float,
    limit: int,
    one_class_per_proposal: bool = False,
) -> tuple[Instances, Tensor]:
    """Detections of one image from all its scores, class by class.

    Args:
        scores: (R, C + 1), the background last.
        boxes: (R, 4) in pixels, clipped to the image here.
        limit: detections to keep; below 0 for all.
        one_class_per_proposal: a region keeps its best class only.

    Returns:
        Instances with ``pred_boxes``, ``scores`` and ``pred_classes``, by falling score, and the region of each.
    """
    usable = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
    scores = scores[:, :-1]
    if one_class_per_proposal and scores.numel():
        scores = scores * (scores == scores.max(dim=1, keepdim=True).values)
    boxes = clip_boxes(boxes, image_size)
    regions, classes = ((scores > score_threshold) & usable[:, None]).nonzero(as_tuple=True)
    chosen = []
    for each in classes.unique():
        of_class = (classes == each).nonzero().squeeze(1)
        kept = nms(boxes[regions[of_class]], scores[regions[of_class], each], nms_threshold)
        chosen.append(of_class[kept])
    keep = torch.cat(chosen) if chosen else classes
    keep = keep[scores[regions[keep], classes[keep]].sort(descending=True, stable=True).indices]
    keep = keep[:limit] if limit >= 0 else keep
    regions, classes = regions[keep], classes[keep]
    return detections(boxes[regions], scores[regions, classes], classes, image_size), regions


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes (R, 4) cut at the border of an image of the given height and width."""
    height, width = image_size
    return torch.minimum(boxes, boxes.new_tensor([width, height, width, height])).clamp(min=0)


def detections(boxes: Tensor, scores: Tensor, classes: Tensor, image_size: tuple[int, int]) -> Instances:
    """Detectron2's container of detections."""
    result = Instances(image_size)
    result.pred_boxes = Boxes(boxes)
    result.scores = scores
    result.pred_classes = classes
    return result


def fast_detections(
    stages: Sequence[StageScores],
    proposal_scores: Tensor | None,
    boxes: Tensor,
    image_size: tuple[int, int],
    score_threshold: float,
    nms_threshold: float,
    limit: int,
    chunk: int | None = None,
) -> tuple[Instances, Tensor]:
    """The same detections as :func:`reference_detections` on sigmoid scores, without a region-by-class table.

    A score is at most ``sqrt(sigmoid(highest logit of the stages) * proposal score)``, so one comparison of logits
    says which pairs of region and class can pass; only these are scored. Suppression goes by falling score and a box is
    only ever dropped for a better one, so the best pairs settle the result: more of them are taken only when fewer
    than ``limit`` boxes stand. Classes are kept apart by an offset instead of a loop.

    Args:
        proposal_scores: (R,), or None where the class score stands alone.
        chunk: classes that are looked at together.
    """
    chunk = chunk or (8192 if boxes.is_cuda else 2048)
    clipped = clip_boxes(boxes, image_size)
    budget = max(4 * limit, 1000) if limit >= 0 else None
    while True:
        candidates = best_pairs(stages, proposal_scores, boxes, score_threshold, budget, chunk)
        regions, classes, scores = candidates.regions, candidates.classes, candidates.scores
        keep = classwise_nms(clipped[regions], scores, classes, nms_threshold)
        if budget is None or not candidates.cut or len(keep) >= limit:
            break
        budget *= 4
    keep = keep[:limit] if limit >= 0 else keep
    return detections(clipped[regions[keep]], scores[keep], classes[keep], image_size), regions[keep]


class Pairs(NamedTuple):
    """Pairs of region and class with their scores, each (n,); ``cut`` says that worse ones were left out."""

    regions: Tensor
    classes: Tensor
    scores: Tensor
    cut: bool


def best_pairs(
    stages: Sequence[StageScores],
    proposal_scores: Tensor | None,
    boxes: Tensor,
    score_threshold: float,
    budget: int | None,
    chunk: int,
) -> Pairs:
    """The pairs that score above ``score_threshold``, at least the best ``budget`` of them."""
    device, dtype = boxes.device, stages[0].projected.dtype
    usable = torch.isfinite(boxes).all(dim=1)
    for stage in stages:
        usable &= torch.isfinite(stage.projected).all(dim=1)
    num_classes = stages[0].weight.shape[1] - 1
    kept = Pairs(
        torch.empty(0, dtype=torch.long, device=device),
        torch.empty(0, dtype=torch.long, device=device),
        torch.empty(0, dtype=dtype, device=device),
        False,
    )
    threshold = score_threshold
    for start in range(0, num_classes, chunk):
        stop = min(start + chunk, num_classes)
        logits = [stage.projected @ stage.weight[:, start:stop] for stage in stages]  # (R, c)
        logits = [each if stage.bias is None else each + stage.bias for each, stage in zip(logits, stages, strict=True)]
        highest = logits[0]
        for each in logits[1:]:
            highest = torch.maximum(highest, each)
        needed = _needed_logit(threshold, proposal_scores, len(boxes), highest)
        needed = needed.masked_fill(~usable, torch.inf)
        regions, classes = (highest > needed[:, None]).nonzero(as_tuple=True)
        probabilities = [each[regions, classes].sigmoid() for each in logits]
        scores = mixed_scores(probabilities, None if proposal_scores is None else proposal_scores[regions])
        passing = scores > threshold
        kept = Pairs(
            torch.cat((kept.regions, regions[passing])),
            torch.cat((kept.classes, classes[passing] + start)),
            torch.cat((kept.scores, scores[passing])),
            kept.cut,
        )
        if budget is not None and len(kept.scores) > budget:
            best = kept.scores.topk(budget).indices
            kept = Pairs(kept.regions[best], kept.classes[best], kept.scores[best], True)
            threshold = float(kept.scores[-1])
    return kept


def _needed_logit(threshold: float, proposal_scores: Tensor | None, regions: int, like: Tensor) -> Tensor:
    """The logit (R,) that the highest stage must exceed for the mixed score to exceed ``threshold``."""
    if threshold < 0:
        return like.new_full((regions,), -torch.inf)
    if proposal_scores is None:
        needed = like.new_full((regions,), threshold)
    else:
        needed = threshold**2 / proposal_scores.to(like.dtype).clamp(min=1e-12)
    # A little slack keeps pairs that rounding puts on the other side; they are compared exactly afterwards.
    return torch.logit(needed.clamp(min=0, max=1)) - 1e-3


def classwise_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """Indices that stand, by falling score; boxes only drop boxes of their own class.

    Each class is moved to a place of its own, in double precision: the offsets of 20,000 classes would cost float32
    whole pixels.
    """
    if len(boxes) == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    offset = classes.double() * (boxes.max().double() + 1)
    return nms(boxes.double() + offset[:, None], scores.double(), threshold)
