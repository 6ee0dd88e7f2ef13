"""The output of the predict tool for a detector: drawn photos and one COCO document."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pomp_det.predictor import coco_results
from pomp_engine.data.photos import read_photo
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detectron2.structures import Instances

    from pomp_det.predictor import OpenVocabularyPredictor


def detect_photos(
    predictor: OpenVocabularyPredictor, photos: Sequence[Path], folder: Path, threshold: float, hide_photo: bool = False
) -> str:
    """Write ``0001_NAME.png`` for each photo, and ``detections.json``.

    Args:
        threshold: lowest score.
        hide_photo: draw on grey, for photos that may not be shown.

    Returns:
        one line that says what was found.

    Raises:
        UserError: a file that is not a photo; a folder that cannot be written.
    """
    names, results = predictor.class_names, []
    for photo in photos:
        pixels = read_photo(photo)
        detections = predictor(pixels)
        detections = detections[detections.scores >= threshold]
        results.append((str(photo), (pixels.shape[0], pixels.shape[1]), detections))
        with atomic_path(folder / f"{len(results):04d}_{photo.stem}.png") as temporary:
            canvas = np.full_like(pixels, 235) if hide_photo else pixels
            Image.fromarray(draw_detections(canvas, detections, names)).save(temporary, format="PNG")
    write_json(folder / "detections.json", coco_results(results, names))
    total = sum(len(detections) for _, _, detections in results)
    return f"{total} detections of {len(names)} classes in {len(photos)} photos, written to {folder}"


def draw_detections(photo: np.ndarray, instances: Instances, class_names: Sequence[str]) -> np.ndarray:
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
        xyxy=instances.pred_boxes.tensor.numpy(),
        mask=instances.pred_masks.numpy().astype(bool) if instances.has("pred_masks") else None,
        confidence=instances.scores.numpy(),
        class_id=instances.pred_classes.numpy(),
    )
    labels = [
        f"{class_names[row]} {score:.2f}"
        for row, score in zip(instances.pred_classes.tolist(), instances.scores, strict=True)
    ]
    scene = np.ascontiguousarray(photo[:, :, ::-1])  # supervision's colours are BGR
    if detections.mask is not None and len(detections):
        scene = sv.MaskAnnotator(opacity=0.4).annotate(scene, detections)
    scene = sv.BoxAnnotator(thickness=2).annotate(scene, detections)
    scene = sv.LabelAnnotator(text_scale=0.4, text_padding=3).annotate(scene, detections, labels)
    return np.ascontiguousarray(scene[:, :, ::-1])
