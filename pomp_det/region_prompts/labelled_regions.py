"""Cached embeddings of regions with the class and the IoU of the annotation that each overlaps most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.structures import Boxes, BoxMode, pairwise_iou
from torch import Tensor

from pomp_det.data.region_cache import RegionCache
from prompt_core.errors import UserError


class LabelledRegions(NamedTuple):
    """Regions of all photos.

    Attributes:
        features: (R, E) image embeddings, unit-norm up to their precision.
        labels: (R,) class of the annotation that a region overlaps most, in 0..C-1; C where it overlaps none.
        ious: (R,) the overlap.
    """

    features: Tensor
    labels: Tensor
    ious: Tensor

    def of_grade(self, num_classes: int, grade: tuple[float, float]) -> Tensor:
        """(R,) true for regions of a class whose IoU is at least the first and below the second number."""
        return (self.labels < num_classes) & (self.ious >= grade[0]) & (self.ious < grade[1])

    def rows(self, chosen: Tensor) -> LabelledRegions:
        """Some of them."""
        return LabelledRegions(self.features[chosen], self.labels[chosen], self.ious[chosen])


def label_boxes(boxes: Tensor, gt_boxes: Tensor, gt_classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Labels (R,) and IoUs (R,) of boxes (R, 4), see :class:`LabelledRegions`.

    Args:
        gt_boxes: (G, 4).
        gt_classes: (G,) below C.
        num_classes: C, the label of what overlaps nothing.
    """
    if len(gt_boxes) == 0 or len(boxes) == 0:
        return gt_classes.new_full((len(boxes),), num_classes), boxes.new_zeros(len(boxes))
    ious, best = pairwise_iou(Boxes(boxes), Boxes(gt_boxes)).max(dim=1)
    return torch.where(ious > 0, gt_classes[best], num_classes), ious


def read_labelled_regions(
    cache: RegionCache, records: Sequence[Mapping[str, Any]], names: Sequence[str], least: float = 0.1
) -> tuple[LabelledRegions, list[str]]:
    """The cached regions of a data set with boxes, and the names of the classes that it annotates.

    Classes without any box, such as the rare ones of a base-only file, are left out: they are what is novel. Crowd
    regions do not count.

    Args:
        records: with ``image_id`` and ``annotations``, as Detectron2 has them.
        names: of all classes of the data set.
        least: IoU of the regions that are kept, in half floats; no method learns on others.

    Returns:
        regions whose labels count the classes that remain, and the names of these, C of them.

    Raises:
        UserError: when no photo of the data set is in the cache, or it annotates nothing.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for record in records:
        regions = cache.regions(record["image_id"])
        if regions is None:
            continue
        shapes = [shape for shape in record.get("annotations") or () if not shape.get("iscrowd", 0)]
        truth = torch.tensor(
            [BoxMode.convert(list(shape["bbox"]), shape["bbox_mode"], BoxMode.XYXY_ABS) for shape in shapes]
        ).reshape(-1, 4)
        classes = torch.tensor([shape["category_id"] for shape in shapes], dtype=torch.int64)
        labels, ious = label_boxes(regions.boxes, truth.float(), classes, len(names))
        kept = ious >= least
        parts.append((regions.embeddings[kept].half(), labels[kept], ious[kept]))
    annotated = sorted({shape["category_id"] for record in records for shape in record.get("annotations") or ()})
    if not parts or not annotated:
        raise UserError(
            "no region of this data set has an embedding and a class; give the embeddings of its photos and a data set "
            "with boxes"
        )
    features, labels, ious = (torch.cat(column) for column in zip(*parts, strict=True))
    renumbered = torch.full((len(names) + 1,), len(annotated))
    renumbered[torch.tensor(annotated)] = torch.arange(len(annotated))
    return LabelledRegions(features, renumbered[labels], ious), [names[row] for row in annotated]
