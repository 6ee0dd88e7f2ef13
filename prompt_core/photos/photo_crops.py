"""What was found in photos, cut out: a JPEG for each thing, in a folder for each word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from prompt_core.files import atomic_path
from prompt_core.photos.photo_list import NamedPhoto
from prompt_core.photos.writable_names import writable

CROPS = "crops"
_QUALITY = 92


def write_crops(
    folder: Path, photo: NamedPhoto, pixels: np.ndarray, found: Sequence[tuple[str, Sequence[float]]]
) -> None:
    """Write ``crops/WORD/0001_photo_001.jpg`` and so on, numbered in the order of ``found``.

    Args:
        pixels: (H, W, 3) uint8 in RGB.
        found: words with boxes: x, y, width and height in pixels. What has no pixel is left out.
    """
    height, width = pixels.shape[:2]
    for number, (word, (x, y, wide, high)) in enumerate(found, start=1):
        left, top = max(0, math.floor(x)), max(0, math.floor(y))
        cut = pixels[top : min(height, math.ceil(y + high)), left : min(width, math.ceil(x + wide))]
        if cut.size:
            name = f"{Path(photo.picture).stem}_{number:03d}.jpg"
            with atomic_path(folder / CROPS / (writable(word).strip(". ") or "_") / name) as temporary:
                Image.fromarray(np.ascontiguousarray(cut)).save(temporary, "JPEG", quality=_QUALITY)
