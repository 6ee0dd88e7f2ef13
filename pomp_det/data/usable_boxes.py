"""Boxes and masks that a detector can train on, and a counted list of those that it cannot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_schema import Shapes
from pomp_engine.data.annotation_masks import mask_fault
from prompt_core.documents.schema import misfits
from prompt_core.errors import UserError
from prompt_core.visible import shortened

# COCO's and LVIS's own boxes overshoot the image by less than this; more is worth a word.
OVERSHOOT_PIXELS = 2.0
# Above this share of unusable boxes the file is in another format (corners, fractions), not a little damaged.
MOST_DROPPED = 0.1
EXAMPLES = 5


@dataclass
class Problems:
    """Dropped entries and remarks of a file.

    Attributes:
        counts: how often each kind of problem occurs.
        examples: the first few places of each kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, place: str) -> None:
        """Count one problem and keep its place if it is among the first."""
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append(place)

    def lines(self) -> list[str]:
        """One line for each kind, with the first places."""
        return [
            f"{count} {kind}: {'; '.join(self.examples[kind])}{'; …' if count > EXAMPLES else ''}"
            for kind, count in self.counts.items()
        ]


def usable_annotations(
    path: str | Path, images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> tuple[dict[Any, list[Mapping[str, Any]]], Problems]:
    """Annotations of each image that a detector can train on, and what was left out.

    Left out are boxes that are not four finite numbers, have no size or lie outside the image, masks that are no
    numbers, polygons of fewer than three points or run lengths that do not fill the image, and annotations without a
    mask in images whose other annotations have one (Detectron2 reads either all masks of an image or none).

    Args:
        images: checked images with ``id``, ``width``, ``height``.
        annotations: checked annotations with ``bbox`` (x, y, width, height) in pixels.

    Returns:
        annotations by image id, in file order, and the problems.

    Raises:
        UserError: when more than a tenth of the boxes is unusable: the boxes are then in another format.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    problems = Problems()
    by_image: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in images}
    dropped = 0
    malformed = misfits(annotations, Shapes)
    for number, annotation in enumerate(annotations):
        box, size = annotation["bbox"], sizes[annotation["image_id"]]
        problem = _box_problem(box, *size)
        if problem is not None:
            problems.add(f"boxes dropped ({problem})", _place(annotation))
            dropped += 1
            continue
        if _overshoot(box, *size) > OVERSHOOT_PIXELS:
            problems.add("boxes cut at the image's edge", _place(annotation))
        segmentation = annotation.get("segmentation")
        problem = "box or mask that is no numbers" if number in malformed else mask_fault(segmentation, *size)
        if problem is not None:
            problems.add(f"annotations dropped ({problem})", _place(annotation))
            continue
        by_image[annotation["image_id"]].append(annotation)
    if dropped > MOST_DROPPED * len(annotations):
        raise UserError(
            f"{path}: {dropped} of {len(annotations)} boxes cannot be used ({problems.lines()[0]}); "
            "boxes are expected as x, y, width, height in pixels of the image"
        )
    for image_id, usable in by_image.items():
        by_image[image_id] = _all_masks_or_none(usable, problems)
    return by_image, problems


def _place(annotation: Mapping[str, Any]) -> str:
    return f"annotation {annotation['id']} of image {annotation['image_id']}, box {shortened(annotation['bbox'])}"


def _box_problem(box: Any, width: int, height: int) -> str | None:
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return "not four numbers"
    if not all(isinstance(value, (int, float)) and abs(value) < math.inf for value in box):
        return "not four finite numbers"
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return "zero size"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "outside the image"
    return None


def _overshoot(box: Sequence[float], width: int, height: int) -> float:
    x, y, w, h = box
    return max(-x, -y, x + w - width, y + h - height)


def _all_masks_or_none(annotations: list[Mapping[str, Any]], problems: Problems) -> list[Mapping[str, Any]]:
    with_mask = [annotation for annotation in annotations if annotation.get("segmentation")]
    if len(with_mask) in (0, len(annotations)):
        return annotations
    for annotation in annotations:
        if not annotation.get("segmentation"):
            place = f"annotation {annotation['id']} of image {annotation['image_id']}"
            problems.add("annotations dropped (no mask, while others of the image have one)", place)
    return with_mask
