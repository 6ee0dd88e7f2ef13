"""Detections drawn into their photo."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from prompt_core.errors import UserError
from prompt_core.visible import visible

OPACITY = 0.4  # of masks over the photo
BAND = 64  # rows of a photo that are mixed with colours at once


def draw_detections(photo: np.ndarray, rows: Sequence[dict[str, Any]], class_names: Sequence[str]) -> np.ndarray:
    """A copy of ``photo`` with boxes, names with scores, and masks where there are any; one colour for each class.

    Masks are painted one by one from their run lengths.

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
        colours = [sv.ColorPalette.DEFAULT.by_idx(int(index)).as_bgr() for index in classes]
        scene = _with_masks(scene, rows, colours)
    detections = sv.Detections(xyxy=boxes, **found)
    scene = sv.BoxAnnotator(thickness=2).annotate(scene, detections)
    scene = sv.LabelAnnotator(text_scale=0.4, text_padding=3).annotate(scene, detections, labels)
    return np.ascontiguousarray(scene[:, :, ::-1])


def _with_masks(
    scene: np.ndarray, rows: Sequence[dict[str, Any]], colours: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """The scene under masks in colours, small ones over large ones."""
    painted = scene.copy()
    for number in np.flip(np.argsort([row["area"] for row in rows])):
        mask = rows[number]["segmentation"]
        left, top, width, height = (int(value) for value in run_lengths.toBbox(mask))
        place = slice(top, top + height), slice(left, left + width)
        painted[place][run_lengths.decode(mask)[place] > 0] = colours[number]
    for start in range(0, len(scene), BAND):
        band = slice(start, start + BAND)
        painted[band] = np.rint(OPACITY * painted[band] + (1 - OPACITY) * scene[band])
    return painted
