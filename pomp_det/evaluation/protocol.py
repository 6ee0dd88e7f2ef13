"""The protocol of a number: how it was computed, and which detections count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prompt_core.errors import UserError, nearest

KINDS = ("lvis", "coco", "openimages")
BACKENDS = ("hotcoco", "reference")
MASKS_WITHOUT_GROUND_TRUTH = ("evaluate", "skip")
# Of an image over all classes, of an image and class, and of a class over the whole set.
LVIS_DETECTIONS, COCO_DETECTIONS, FIXED_AP_DETECTIONS = 300, 100, 10_000


@dataclass(frozen=True)
class Protocol:
    """How detections of one data set are scored.

    Attributes:
        dataset: name of the data set and split.
        kind: ``lvis`` (federated), ``coco`` or ``openimages``.
        detections: how many of an image count: over all classes (``lvis``, ``openimages``, 300) or of each class
            (``coco``, 100).
        fixed_ap: no cap for an image, the 10,000 best of each class over the set; ``lvis`` only.
        masks_without_ground_truth: what to do with predicted masks where the annotations have none. ``evaluate``, as
            in the published cross-data-set configuration, scores them: no mask can match, AP is 0 (pycocotools itself
            stops with a KeyError). ``skip`` leaves mask metrics out.
        class_groups: named lists of category ids whose AP50 is reported apart.

    Raises:
        UserError: for values that are not known, or Fixed AP for ``coco``.
    """

    dataset: str
    kind: str
    detections: int | None = None
    fixed_ap: bool = False
    masks_without_ground_truth: str = "evaluate"
    class_groups: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"data set {self.dataset!r} has annotations of kind {self.kind!r}, which are not scored")
        known = MASKS_WITHOUT_GROUND_TRUTH
        if self.masks_without_ground_truth not in known:
            hint = nearest(self.masks_without_ground_truth, known)
            raise UserError(
                f"masks_without_ground_truth is {self.masks_without_ground_truth!r}; expected {', '.join(known)}{hint}"
            )
        if self.fixed_ap and self.kind != "lvis":
            name = f"{self.dataset!r} is scored by {self.variant}"
            raise UserError(f"Fixed AP is defined for federated annotations; {name}")
        if self.fixed_ap and self.detections is not None:
            raise UserError("Fixed AP has no cap for an image; leave the number of detections out")
        if self.detections is not None and self.detections < 1:
            raise UserError(f"detections per image is {self.detections}; expected at least 1")
        if self.detections is None:
            object.__setattr__(self, "detections", COCO_DETECTIONS if self.kind == "coco" else LVIS_DETECTIONS)

    @property
    def variant(self) -> str:
        """Short name of the metric."""
        if self.kind == "coco":
            return "COCO AP"
        if self.kind == "openimages":
            return "Open Images AP50"
        return "LVIS Fixed AP" if self.fixed_ap else "LVIS AP (federated)"

    @property
    def detections_text(self) -> str:
        """The cap, with what it counts."""
        if self.fixed_ap:
            return f"no cap for an image; {FIXED_AP_DETECTIONS:,} of each class over the set"
        return f"{self.detections} of an image" + (" and class" if self.kind == "coco" else ", over all classes")

    def describe(self, **facts: Any) -> dict[str, Any]:
        """The ``_protocol`` entry of ``metrics.json``; ``facts`` are scorer, version and hashes."""
        return {
            "split": self.dataset,
            "metric": self.variant,
            "detections": self.detections_text,
            "iou_thresholds": "0.5" if self.kind == "openimages" else "linspace(0.5, 0.95, 10)",
            "area_source": {
                "ground truth": "'area' of the annotation, else the area of its box",
                "box": "area of the predicted box",
                "mask": "area of the predicted mask; boxes are removed from mask results",
            },
            "masks_without_ground_truth": self.masks_without_ground_truth,
            "class_groups": {name: len(ids) for name, ids in self.class_groups.items()},
            **facts,
        }


def check_backend(backend: str) -> None:
    """Check the name of a scorer.

    Raises:
        UserError: when it is not known.
    """
    if backend not in BACKENDS:
        raise UserError(f"evaluation backend {backend!r} is unknown{nearest(backend, BACKENDS)}; expected {BACKENDS}")


def top_of_image(instances: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The detections of one image with the highest scores, over all classes and before any matching.

    As in lvis-api: images within the limit keep their order, others are sorted by score and ties keep theirs. A cap
    inside the matching, as COCO has it, counts each class separately and lets more pass.
    """
    if len(instances) <= limit:
        return list(instances)
    return sorted(instances, key=lambda instance: -float(instance["score"]))[:limit]


def top_of_class(categories: np.ndarray, scores: np.ndarray, limit: int = FIXED_AP_DETECTIONS) -> np.ndarray:
    """Which of n detections are among the ``limit`` best of their class over the whole set; ties keep their order.

    Fixed AP (Dave et al. 2021, "Evaluating large-vocabulary object detectors: the devil is in the details"): no cap
    for an image, so that classes do not compete for places.

    Args:
        categories: (n,) category ids.
        scores: (n,).

    Returns:
        (n,) bool.
    """
    order = np.lexsort((np.arange(len(scores)), -scores, categories))
    ordered = categories[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, dtype=int)
    rank = np.arange(len(ordered)) - np.repeat(first, np.diff(np.r_[first, len(ordered)]))
    mask = np.zeros(len(scores), dtype=bool)
    mask[order[rank < limit]] = True
    return mask
