"""Which detections are scored: the cap of each image, or the cap of each class over the whole set (Fixed AP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LVIS_DETECTIONS = 300
COCO_DETECTIONS = 100
FIXED_AP_DETECTIONS = 10_000


def top_of_image(instances: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The detections of one image with the highest scores, over all classes and before any matching.

    As in lvis-api: images within the limit keep their order, others are sorted by score and ties keep theirs. A cap
    inside the matching, as COCO has it, counts each class alone and lets more through.
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
    kept = np.zeros(len(scores), dtype=bool)
    kept[order[rank < limit]] = True
    return kept
