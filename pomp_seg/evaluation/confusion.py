"""The confusion matrix: how many pixels of each class were given each class."""

from __future__ import annotations

import numpy as np

from prompt_core.errors import UserError


def confusion_matrix(
    prediction: np.ndarray, truth: np.ndarray, num_classes: int, ignore_label: int = 255
) -> np.ndarray:
    """Pixels by predicted class (row) and true class (column), (C + 1, C + 1) int64.

    The last column counts pixels without a true class; the last row is empty, because each pixel is predicted. The
    shape is that of Detectron2's ``SemSegEvaluator``. Matrices of several images are added.

    Args:
        prediction: (H, W) integers 0..C-1 of any width; 8 bits are enough for no more than 256 classes.
        truth: (H, W) integers 0..C-1 and ``ignore_label``.

    Raises:
        UserError: when sizes differ, or a value is no class.
    """
    if prediction.shape != truth.shape:
        raise UserError(f"the prediction has size {prediction.shape}, its label {truth.shape}; expected the same")
    side = num_classes + 1
    # 64 bits first: the products below leave the range of the maps' own types.
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
