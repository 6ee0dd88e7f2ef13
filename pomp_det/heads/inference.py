"""From class scores and boxes to detections: the plain reference, and a fast version for large vocabularies."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import nms

from pomp_det.heads.region_shares import RegionShares

ROUNDING = 1e-3  # far more than float32 is off by


class StageScores(NamedTuple):
    """The factors of a stage's class logits.

    Attributes:
        projected: (R, E) region features in the classes' space.
        weight: (E, C + 1) class features in columns, the background last.
        bias: a scalar added to each logit, or None.
        shares: own shares that class probabilities are multiplied by, or None.
    """

    projected: Tensor
    weight: Tensor
    bias: Tensor | None = None
    shares: RegionShares | None = None

    def rows(self, regions: Tensor) -> StageScores:
        """Those of some regions."""
        return self._replace(
            projected=self.projected[regions], shares=None if self.shares is None else self.shares.rows(regions)
        )

    def split(self, sizes: Sequence[int]) -> list[StageScores]:
        """Those of all images together as those of each image."""
        shares = [None] * len(sizes) if self.shares is None else self.shares.split(sizes)
        parts = zip(self.projected.split(list(sizes)), shares, strict=True)
        return [self._replace(projected=projected, shares=of_image) for projected, of_image in parts]

    def logits(self) -> Tensor:
        """The table of logits (R, C + 1)."""
        logits = self.projected @ self.weight
        return logits if self.bias is None else logits + self.bias


class ScoreOptions(NamedTuple):
    """How a box head scores.

    Attributes:
        multiply_proposal_score: a score is the geometric mean of class probability and proposal score.
        one_class_per_proposal: a region keeps its best class only.
        fast: score only what can pass.
    """

    multiply_proposal_score: bool = False
    one_class_per_proposal: bool = False
    fast: bool = True


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
    for class_id in classes.unique():
        of_class = (classes == class_id).nonzero().squeeze(1)
        kept = nms(boxes[regions[of_class]], scores[regions[of_class], class_id], nms_threshold)
        chosen.append(of_class[kept])
    keep = torch.cat(chosen) if chosen else classes
    keep = keep[scores[regions[keep], classes[keep]].sort(descending=True, stable=True).indices]
    keep = keep[:limit] if limit >= 0 else keep
    regions, classes = regions[keep], classes[keep]
    return detections(boxes[regions], scores[regions, classes], classes, image_size), regions


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes (R, 4) cut at the border of an image of the given height and width."""
    height, width = image_size
    across, down = boxes[:, 0::2].clamp(min=0, max=width), boxes[:, 1::2].clamp(min=0, max=height)  # (R, 2) each
    return torch.stack((across, down), dim=2).flatten(1)


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

    Only pairs that can be among the detections are scored (:func:`best_pairs`), and suppression stops once ``limit``
    boxes stand. Classes are kept apart by an offset instead of a loop.

    Args:
        proposal_scores: (R,), or None where only the class score counts.
        chunk: classes that are processed together.
    """
    clipped = clip_boxes(boxes, image_size)
    pairs = best_pairs(stages, proposal_scores, boxes, score_threshold, limit, chunk)
    keep = _standing(clipped, pairs, nms_threshold, limit)
    regions = pairs.regions[keep]
    return detections(clipped[regions], pairs.scores[keep], pairs.classes[keep], image_size), regions


class SharedClasses:
    """Notices that all stages have the same classes, so that their logits are one product.

    The comparison is made again only when a matrix has been replaced or changed.

    Attributes:
        same: whether they had when it was last called.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[Tensor, int]] = []
        self.same = False

    def __call__(self, stages: Sequence[StageScores]) -> list[StageScores]:
        """The stages, with the first one's matrix instead of equal ones."""
        first = stages[0].weight
        # Tensors made in inference mode cannot change, and do not count their versions.
        seen = [(stage.weight, -1 if stage.weight.is_inference() else stage.weight._version) for stage in stages]
        known = len(seen) == len(self._seen) and all(
            now is before and version == old for (now, version), (before, old) in zip(seen, self._seen, strict=True)
        )
        if not known:
            self.same = all(torch.equal(first, stage.weight) for stage in stages[1:])
            self._seen = seen
        return [stage._replace(weight=first) for stage in stages] if self.same else list(stages)


class Pairs(NamedTuple):
    """Pairs of region and class with their scores, each (n,)."""

    regions: Tensor
    classes: Tensor
    scores: Tensor


def best_pairs(
    stages: Sequence[StageScores],
    proposal_scores: Tensor | None,
    boxes: Tensor,
    score_threshold: float,
    limit: int,
    chunk: int | None = None,
) -> Pairs:
    """The pairs above ``score_threshold`` that can be among the ``limit`` best after suppression.

    The best box of a class is never suppressed. Once ``limit`` classes have reached a score, a pair below it cannot be
    among the ``limit`` best any more; the bar rises from chunk to chunk. A score is at most
    ``sqrt(sigmoid(highest logit of the stages) * proposal score)``: one comparison of logits says which pairs can pass
    the bar, and only these are scored. Proposals whose own score is too low for the bar are not even multiplied.

    Args:
        proposal_scores: (R,), or None where only the class score counts.
        boxes: (R, 4); regions whose box or features are not finite are left out.
        limit: below 0 for all pairs above ``score_threshold``.
        chunk: classes that are processed together.

    Returns:
        by falling score; ties in the order of classes, then regions.
    """
    rows, objectness = _usable_rows(stages, proposal_scores, boxes)
    parts = [stage.rows(rows) for stage in stages]
    num_classes = stages[0].weight.shape[1] - 1
    chunk = chunk or (8192 if boxes.is_cuda else 2048)
    best = parts[0].projected.new_full((num_classes,), -torch.inf)
    kept = Pairs(rows.new_empty(0), rows.new_empty(0), best.new_empty(0))
    bar, start = score_threshold, 0
    # Nothing can be left out before `limit` classes have been seen, so the first chunks are small.
    width = chunk if limit < 0 else min(chunk, max(2 * limit, 64))
    while start < num_classes:
        stop = min(start + width, num_classes)
        above = _pairs_above(parts, objectness, bar, start, stop)
        passing = (above.scores > score_threshold).nonzero().squeeze(1)
        kept = Pairs(*(torch.cat((old, new[passing])) for old, new in zip(kept, above, strict=True)))
        best.scatter_reduce_(0, above.classes[passing], above.scores[passing], "amax")
        if 0 < limit <= stop:
            bar = max(bar, float(best[:stop].topk(limit).values[-1]))
            high = (kept.scores >= bar).nonzero().squeeze(1)
            kept = Pairs(*(part[high] for part in kept))
        start, width = stop, min(2 * width, chunk)
    regions = rows[kept.regions]
    order = (kept.classes * len(boxes) + regions).argsort()
    order = order[kept.scores[order].sort(descending=True, stable=True).indices]
    return Pairs(regions[order], kept.classes[order], kept.scores[order])


def _usable_rows(
    stages: Sequence[StageScores], proposal_scores: Tensor | None, boxes: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Regions (n,) without a number that is not finite, by falling proposal score, and these scores."""
    usable = torch.isfinite(boxes).all(dim=1)
    for stage in stages:
        usable &= torch.isfinite(stage.projected).all(dim=1)
    if proposal_scores is None:
        return usable.nonzero().squeeze(1), None
    rows = (usable & torch.isfinite(proposal_scores)).nonzero().squeeze(1)
    objectness, order = proposal_scores[rows].sort(descending=True)
    return rows[order], objectness


def _pairs_above(stages: Sequence[StageScores], objectness: Tensor | None, bar: float, start: int, stop: int) -> Pairs:
    """Pairs of classes ``start`` to ``stop`` that score at least ``bar``, and perhaps a few below it.

    Args:
        objectness: (n,) proposal scores, falling.
    """
    count = len(stages[0].projected)
    if objectness is not None and bar > 0:
        count = int((objectness >= (1 - ROUNDING) * bar**2).sum())
    logits = _logits(stages, count, start, stop)
    highest = functools.reduce(torch.maximum, logits)
    objectness = None if objectness is None else objectness[:count]
    needed = _needed_logit(bar, objectness, count, highest)
    regions, classes = (highest > needed[:, None]).nonzero(as_tuple=True)
    probabilities = [stage_logits[regions, classes].sigmoid() for stage_logits in logits]
    for place, stage in enumerate(stages):  # shares are at most 1, so that no pair above the bar was left out
        if stage.shares is not None:
            probabilities[place] = probabilities[place] * stage.shares.of_pairs(regions, classes + start)
    scores = mixed_scores(probabilities, None if objectness is None else objectness[regions])
    return Pairs(regions, classes + start, scores)


def _logits(stages: Sequence[StageScores], count: int, start: int, stop: int) -> list[Tensor]:
    """Logits (count, stop - start) of each stage for the first regions; one product where stages share classes."""
    if count and all(stage.weight is stages[0].weight for stage in stages):
        together = torch.cat([stage.projected[:count] for stage in stages])  # (S * count, E)
        logits = list((together @ stages[0].weight[:, start:stop]).split(count))
    else:
        logits = [stage.projected[:count] @ stage.weight[:, start:stop] for stage in stages]
    return [
        stage_logits if stage.bias is None else stage_logits + stage.bias
        for stage_logits, stage in zip(logits, stages, strict=True)
    ]


def _needed_logit(threshold: float, proposal_scores: Tensor | None, regions: int, like: Tensor) -> Tensor:
    """The logit (R,) that the highest stage must exceed for the mixed score to exceed ``threshold``."""
    if threshold < 0:
        return like.new_full((regions,), -torch.inf)
    if proposal_scores is None:
        needed = like.new_full((regions,), threshold)
    else:
        needed = threshold**2 / proposal_scores.to(like.dtype).clamp(min=1e-12)
    # A little slack keeps pairs that rounding puts on the other side; they are compared exactly afterwards.
    return torch.logit(needed.clamp(min=0, max=1)) - ROUNDING


def classwise_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """Indices that stand, by falling score; boxes only drop boxes of their own class.

    Each class is moved to a place of its own, in double precision: the offsets of 20,000 classes would cost float32
    whole pixels.
    """
    if len(boxes) == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    offset = classes.double() * (boxes.max().double() + 1)
    return nms(boxes.double() + offset[:, None], scores.double(), threshold)


def _standing(boxes: Tensor, pairs: Pairs, nms_threshold: float, limit: int) -> Tensor:
    """Indices of the ``limit`` best pairs that stand, by falling score; ``pairs`` by falling score.

    A box is only ever dropped for a better one, so the best pairs settle the result: more of them are processed only
    while fewer than ``limit`` stand.

    Args:
        boxes: (R, 4) of the regions.
    """
    total = len(pairs.scores)
    taken = total if limit < 0 else min(total, 4 * limit)
    while True:
        regions, classes, scores = (column[:taken] for column in pairs)
        keep = classwise_nms(boxes[regions], scores, classes, nms_threshold)
        if taken == total or len(keep) >= limit:
            return keep if limit < 0 else keep[:limit]
        # As many as the share of boxes that stood makes likely to be enough, with a margin.
        taken = min(total, max(2 * taken, int(1.25 * taken * limit / max(len(keep), 1))))
