"""Photos as arrays, from files that a user names and from records, in their Exif orientation."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.data import detection_utils

from pomp_engine.data.tar_images import decode_image, read_tar_bytes
from prompt_core.data.open_photo import UnreadableImage


def read_record_photo(record: dict[str, Any], image_format: str) -> np.ndarray:
    """The photo of a record, (H, W, 3) uint8, from its file or its archive.

    Args:
        record: with ``file_name``; ``tar`` where the photo is inside an archive. Missing ``width`` and ``height`` are
            added to it.
        image_format: order of the channels, as ``INPUT.FORMAT``.

    Raises:
        UnreadableImage: when the photo cannot be read or has another size than the record says.
    """
    name = record["file_name"]
    try:
        source = read_tar_bytes(*record["tar"]) if "tar" in record else name
        image = decode_image(source, image_format, name)
        detection_utils.check_image_size(record, image)
    except UnreadableImage:
        raise
    except Exception as error:  # OSError of the archive, Detectron2's own for another size
        raise UnreadableImage(name, str(error) or type(error).__name__) from error
    return image
