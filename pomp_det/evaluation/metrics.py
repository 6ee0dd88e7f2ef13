"""Average precision from the precision array that COCO's and LVIS's evaluators accumulate.

An entry of -1 stands for a class without ground truth (in that size range). Such entries are left out of every mean;
a mean over nothing is NaN. Averaging them in, or counting them as 0, changes AP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# The thresholds of both evaluators: linspace, not arange, whose values are a little larger.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = ("all", "small", "medium", "large")


def average_precision(
    precision: np.ndarray, iou: float | None = None, area: str = "all", classes: Sequence[int] | None = None
) -> float:
    """Mean of the defined entries; NaN when there are none.

    Args:
        precision: (10, 101, C, 4) at IoU thresholds, recalls, classes and size ranges; -1 where undefined.
        iou: one of :data:`IOU_THRESHOLDS`, or None for all ten.
        area: one of :data:`AREAS`.
        classes: class positions to average over; None for all.
    """
    chosen = precision[..., AREAS.index(area)]  # (10, 101, C)
    if iou is not None:
        chosen = chosen[np.isclose(IOU_THRESHOLDS, iou)]
    if classes is not None:
        chosen = chosen[:, :, list(classes)]
    defined = chosen[chosen > -1]
    return float(defined.mean()) if defined.size else float("nan")


def detection_metrics(
    precision: np.ndarray,
    frequencies: Mapping[str, Sequence[int]] | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, float]:
    """The published numbers in percent: AP, AP50, AP75, APs, APm, APl and those of class groups.

    Args:
        precision: (10, 101, C, 4), see :func:`average_precision`.
        frequencies: class positions of LVIS's groups ``r``, ``c``, ``f``; adds APr, APc, APf.
        groups: class positions of named groups; adds ``AP50-NAME``, as open-vocabulary COCO reports seen and unseen
            classes.
    """
    values = {
        "AP": average_precision(precision),
        "AP50": average_precision(precision, iou=0.5),
        "AP75": average_precision(precision, iou=0.75),
        "APs": average_precision(precision, area="small"),
        "APm": average_precision(precision, area="medium"),
        "APl": average_precision(precision, area="large"),
    }
    for letter, classes in (frequencies or {}).items():
        values[f"AP{letter}"] = average_precision(precision, classes=classes)
    for name, classes in (groups or {}).items():
        values[f"AP50-{name}"] = average_precision(precision, iou=0.5, classes=classes)
    return {name: 100.0 * value for name, value in values.items()}


def class_average_precision(precision: np.ndarray, iou: float | None = None) -> np.ndarray:
    """(C,) AP of each class in percent; NaN for classes without ground truth."""
    count = precision.shape[2]
    return 100.0 * np.array([average_precision(precision, iou, classes=[index]) for index in range(count)])
