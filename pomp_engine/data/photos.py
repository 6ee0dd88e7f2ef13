"""Photos as arrays, from files that a user names and from records, in their Exif orientation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import detection_utils

from pomp_engine.data.tar_images import decode_image, read_tar_bytes
from prompt_core.data.images import UnreadableImage
from prompt_core.errors import UserError


def read_photo(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 in RGB, turned as its Exif orientation says.

    Raises:
        UserError: when the file is absent or not a photo.
    """
    try:
        pixels: np.ndarray = detection_utils.read_image(str(path), format="RGB")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error, …
        raise UserError(f"photo {path} cannot be read: {error or type(error).__name__}") from error
    return pixels


def read_record_photo(record: dict[str, Any], image_format: str) -> np.ndarray:
    """The photo of a record, (H, W, 3) uint8, from its file or its archive.

    Args:
        record: with ``file_name``; ``tar`` where the photo is inside an archive. Missing ``width`` and ``height`` are
            added to it.
        image_format: order of the channels, as ``INPUT.FORMAT``.

    Raises:
        UnreadableImage: when the photo cannot be read or has another size than the record says.
    """
    try:
        if "tar" in record:
            image = decode_image(read_tar_bytes(*record["tar"]), image_format)
        else:
            image = detection_utils.read_image(record["file_name"], format=image_format)
        detection_utils.check_image_size(record, image)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error, …
        raise UnreadableImage(record["file_name"], str(error) or type(error).__name__) from error
    return image
