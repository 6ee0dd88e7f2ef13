"""The confusion matrix of label maps, and segmentation metrics from it.

IoU = TP / (ground truth + predicted - TP), over the pixels that have a true class. mIoU adds the IoU of the classes
with ground truth; what it divides by changed between releases of Detectron2:

- ``ground_truth`` (since July 2022): the number of classes with ground truth;
- ``union`` (before, and in ZSSeg's and POMP's evaluator): that of classes with ground truth or predictions, so that a
  class that is predicted but nowhere true counts as 0.

The two differ where a vocabulary has classes that no photo shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prompt_core.errors import UserError, nearest
from prompt_core.metrics import harmonic_mean

DENOMINATORS = ("ground_truth", "union")


def confusion_matrix(
    prediction: np.ndarray, truth: np.ndarray, num_classes: int, ignore_label: int = 255
) -> np.ndarray:
    """Pixels by predicted class (row) and true class (column), (C + 1, C + 1) int64.

    The last column counts pixels without a true class; the last row is empty, because each pixel is predicted. The
    shape is that of Detectron2's ``SemSegEvaluator``. Matrices of several images are added. torchmetrics' matrix omits
    the pixels without a true class, and its mIoU has only one denominator; so both are computed here.

    Args:
        prediction: (H, W) integers 0..C-1 of any width; 8 bits are enough for no more than 256 classes.
        truth: (H, W) integers 0..C-1 and ``ignore_label``.

    Raises:
        UserError: when sizes differ, or a value is not a class.
    """
    if prediction.shape != truth.shape:
        raise UserError(f"the prediction has size {prediction.shape}, its label {truth.shape}; expected the same")
    side = num_classes + 1
    # 64 bits first: the products below would overflow the maps' own types.
    rows, columns = prediction.astype(np.int64).ravel(), truth.astype(np.int64).ravel()  # (H * W)
    ignored = columns == ignore_label
    wrong = (rows < 0) | (rows >= num_classes)
    if wrong.any():
        raise UserError(f"the prediction has the value {rows[wrong][0]}; expected classes 0..{num_classes - 1}")
    wrong = ((columns < 0) | (columns >= num_classes)) & ~ignored
    if wrong.any():
        raise UserError(
            f"the label has the value {columns[wrong][0]}; expected classes 0..{num_classes - 1} or {ignore_label}"
        )
    columns[ignored] = num_classes
    counts: np.ndarray = np.bincount(rows * side + columns, minlength=side * side)
    return counts.reshape(side, side).astype(np.int64)


@dataclass(frozen=True)
class ClassScores:
    """Numbers of each class.

    Attributes:
        true_positives, ground_truth, predicted: (C,) pixels.
        iou: (C,) fractions; NaN without ground truth.
        accuracy: (C,) fractions; NaN without ground truth.
    """

    true_positives: np.ndarray
    ground_truth: np.ndarray
    predicted: np.ndarray
    iou: np.ndarray
    accuracy: np.ndarray


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Numbers of each class from :func:`pomp_seg.evaluation.metrics.confusion_matrix`, (C + 1, C + 1)."""
    inner = confusion[:-1, :-1].astype(np.float64)  # (C, C)
    hits, truth, predicted = inner.diagonal().copy(), inner.sum(axis=0), inner.sum(axis=1)
    valid = truth > 0
    iou, accuracy = np.full(len(hits), np.nan), np.full(len(hits), np.nan)
    iou[valid] = hits[valid] / (truth + predicted - hits)[valid]
    accuracy[valid] = hits[valid] / truth[valid]
    return ClassScores(hits, truth, predicted, iou, accuracy)


def check_denominator(denominator: str) -> None:
    """Check the name of a denominator of mIoU.

    Raises:
        UserError: when it is not one of :data:`DENOMINATORS`.
    """
    if denominator not in DENOMINATORS:
        hint = nearest(denominator, DENOMINATORS)
        raise UserError(f"the denominator of mIoU is {denominator!r}; expected {' or '.join(DENOMINATORS)}{hint}")


def segmentation_metrics(
    confusion: np.ndarray,
    evaluation_set: Mapping[str, Sequence[int]] | None = None,
    denominator: str = "ground_truth",
) -> dict[str, float]:
    """The published numbers in percent; NaN where nothing is defined.

    ``mIoU``, ``fwIoU`` (IoU weighted by pixels of ground truth), ``mACC`` (mean accuracy of a class), ``pACC``
    (accuracy of a pixel). For each set of classes NAME: ``mIoU-NAME`` and ``pAcc-NAME`` of its classes, ``mIoU-unNAME``
    and ``pAcc-unNAME`` of all others, ``hIoU-NAME``, the harmonic mean of the two mIoU. The set ``base`` is that of the
    seen classes; its numbers are given as ``mIoU-seen``, ``mIoU-unseen`` and ``hIoU`` too.

    Args:
        confusion: (C + 1, C + 1), see :func:`pomp_seg.evaluation.metrics.confusion_matrix`.
        evaluation_set: named lists of class indices.
        denominator: of mIoU, one of :data:`DENOMINATORS`.

    Raises:
        UserError: for an unknown denominator.
    """
    check_denominator(denominator)
    scores = class_scores(confusion)
    all_classes = np.ones(len(scores.iou), dtype=bool)
    total = scores.ground_truth.sum()
    shares = _ratio(scores.ground_truth, total)
    values = {
        "mIoU": _mean_iou(scores, all_classes, denominator),
        "fwIoU": float(np.nansum(scores.iou * shares)) if total else float("nan"),
        "mACC": _mean(scores.accuracy),
        "pACC": float(_ratio(scores.true_positives.sum(), total)),
    }
    for name, classes in (evaluation_set or {}).items():
        inside = np.zeros(len(all_classes), dtype=bool)
        inside[list(classes)] = True
        for label, chosen in ((name, inside), (f"un{name}", ~inside)):
            values[f"mIoU-{label}"] = _mean_iou(scores, chosen, denominator)
            hits, truth = scores.true_positives[chosen].sum(), scores.ground_truth[chosen].sum()
            values[f"pAcc-{label}"] = float(_ratio(hits, truth))
        values[f"hIoU-{name}"] = harmonic_mean(values[f"mIoU-{name}"], values[f"mIoU-un{name}"])
    if "base" in (evaluation_set or {}):
        names = {"mIoU-seen": "mIoU-base", "mIoU-unseen": "mIoU-unbase", "hIoU": "hIoU-base"}
        values |= {name: values[published] for name, published in names.items()}
    return {name: 100.0 * value for name, value in values.items()}


def _mean_iou(scores: ClassScores, chosen: np.ndarray, denominator: str) -> float:
    count = scores.ground_truth > 0
    if denominator == "union":
        count = count | (scores.predicted > 0)
    return float(_ratio(np.nansum(scores.iou[chosen]), (count & chosen).sum()))


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return numerator / denominator if denominator else np.asarray(numerator) * np.nan
