"""What the predict tool writes for a detector: drawn photos and one COCO document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pomp_det.pictures import draw_detections
from pomp_det.predictor import coco_results
from pomp_engine.data.photos import read_photo
from prompt_core.files import atomic_path, write_json

if TYPE_CHECKING:
    from pomp_det.predictor import OpenVocabularyPredictor


def detect_photos(
    predictor: OpenVocabularyPredictor, photos: Sequence[Path], folder: Path, threshold: float, hide_photo: bool = False
) -> str:
    """Write ``0001_NAME.png`` for each photo, and ``detections.json``.

    Args:
        threshold: least score.
        hide_photo: draw on grey, for photos that may not be shown.

    Returns:
        one line that says what was found.

    Raises:
        UserError: a file that is no photo; a folder that cannot be written.
    """
    names, results = predictor.class_names, []
    for photo in photos:
        pixels = read_photo(photo)
        found = predictor(pixels)
        found = found[found.scores >= threshold]
        results.append((str(photo), (pixels.shape[0], pixels.shape[1]), found))
        with atomic_path(folder / f"{len(results):04d}_{photo.stem}.png") as temporary:
            canvas = np.full_like(pixels, 235) if hide_photo else pixels
            Image.fromarray(draw_detections(canvas, found, names)).save(temporary, format="PNG")
    write_json(folder / "detections.json", coco_results(results, names))
    total = sum(len(found) for _, _, found in results)
    return f"{total} detections of {len(names)} classes in {len(photos)} photos, written to {folder}"
