"""Writing what was drawn about a photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from prompt_core.files import atomic_path

# A photo of 12 megapixels takes 0.6 s, and 2.2 s at Pillow's own level, for a file that is a quarter larger.
_COMPRESSION = 1


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint8 in RGB as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=_COMPRESSION)
