"""Detections drawn into their photo."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from prompt_core.errors import UserError
from prompt_core.visible import visible


def draw_detections(photo: np.ndarray, rows: Sequence[dict[str, Any]], class_names: Sequence[str]) -> np.ndarray:
    """A copy of ``photo`` with boxes, names with scores, and masks where there are any; one colour for each class.

    Masks are painted from their run lengths, none of them held at the size of the photo.

    Args:
        photo: (H, W, 3) uint8 in RGB.
        rows: of :func:`pomp_det.photo_detections.coco_rows`, in its pixels.
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
    if not rows:
        return photo.copy()
    boxes = np.array([row["bbox"] for row in rows], dtype=np.float32)  # (n, 4)
    boxes[:, 2:] += boxes[:, :2]
    classes = np.array([row["category_id"] - 1 for row in rows])
    found: dict[str, Any] = {"confidence": np.array([row["score"] for row in rows]), "class_id": classes}
    labels = [f"{visible(class_names[index])} {row['score']:.2f}" for index, row in zip(classes, rows, strict=True)]
    scene = np.ascontiguousarray(photo[:, :, ::-1])  # supervision's colours are BGR
    if all("segmentation" in row for row in rows):
        masks = [row["segmentation"] for row in rows]
        extent = np.array([run_lengths.toBbox(mask) for mask in masks])  # (n, 4): what a mask covers, up to its box
        extent[:, 2:] += extent[:, :2] - 1
        compact = sv.CompactMask.from_coco_rle(masks, extent, photo.shape[:2])
        scene = sv.MaskAnnotator(opacity=0.4).annotate(scene, sv.Detections(xyxy=boxes, mask=compact, **found))
    detections = sv.Detections(xyxy=boxes, **found)
    scene = sv.BoxAnnotator(thickness=2).annotate(scene, detections)
    scene = sv.LabelAnnotator(text_scale=0.4, text_padding=3).annotate(scene, detections, labels)
    return np.ascontiguousarray(scene[:, :, ::-1])
