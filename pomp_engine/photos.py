"""Photos that a user names: found in folders, read in the direction they were taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prompt_core.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def find_photos(given: Sequence[str | Path]) -> list[Path]:
    """The photos themselves, and those inside folders in order of their names.

    Raises:
        UserError: for a path that is not there, or a folder without photos.
    """
    photos: list[Path] = []
    for path in map(Path, given):
        inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in ENDINGS) if path.is_dir() else [path]
        if not path.exists():
            raise UserError(f"photo {path} does not exist")
        if not inside:
            raise UserError(f"folder {path} holds no photo; endings {', '.join(ENDINGS)} are looked for")
        photos += inside
    return photos


def read_photo(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 in RGB, turned as its Exif orientation says.

    Raises:
        UserError: when the file is absent or no photo.
    """
    from detectron2.data.detection_utils import read_image

    try:
        pixels: np.ndarray = read_image(str(path), format="RGB")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error, …
        raise UserError(f"photo {path} cannot be read: {error or type(error).__name__}") from error
    return pixels
