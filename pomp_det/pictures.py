"""Detections drawn on their photo, with supervision."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from prompt_core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detectron2.structures import Instances


def draw_detections(photo: np.ndarray, found: Instances, class_names: Sequence[str]) -> np.ndarray:
    """A copy of ``photo`` with boxes, names with scores, and masks where there are any; one colour for each class.

    Args:
        photo: (H, W, 3) uint8 in RGB.
        found: detections in its pixels, on the CPU.
        class_names: C names.

    Raises:
        UserError: when supervision is not installed.
    """
    try:
        with warnings.catch_warnings():
            # It draws with NumPy where OpenCV is not installed, and says so at every import.
            warnings.filterwarnings("ignore", message="OpenCV")
            import supervision as sv
    except ModuleNotFoundError as error:
        raise UserError("drawing needs supervision; run: pip install 'supervision>=0.31'") from error
    detections = sv.Detections(
        xyxy=found.pred_boxes.tensor.numpy(),
        mask=found.pred_masks.numpy().astype(bool) if found.has("pred_masks") else None,
        confidence=found.scores.numpy(),
        class_id=found.pred_classes.numpy(),
    )
    labels = [
        f"{class_names[row]} {score:.2f}" for row, score in zip(found.pred_classes.tolist(), found.scores, strict=True)
    ]
    scene = np.ascontiguousarray(photo[:, :, ::-1])  # supervision's colours are BGR
    if detections.mask is not None and len(detections):
        scene = sv.MaskAnnotator(opacity=0.4).annotate(scene, detections)
    scene = sv.BoxAnnotator(thickness=2).annotate(scene, detections)
    scene = sv.LabelAnnotator(text_scale=0.4, text_padding=3).annotate(scene, detections, labels)
    return np.ascontiguousarray(scene[:, :, ::-1])
