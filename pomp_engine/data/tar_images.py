"""Photos inside uncompressed tar archives, as ImageNet-21K is distributed (one archive per synset): read in place."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from prompt_core.data.photo_files import is_photo_name
from prompt_core.errors import UserError

# Exif orientations that exchange width and height.
_SIDEWAYS = (5, 6, 7, 8)


def index_tar(path: str | Path) -> list[tuple[str, int, int]]:
    """Photos in an archive as (member name, offset, size) in bytes, sorted by name.

    Raises:
        UserError: when it is not an uncompressed tar archive, or truncated.
    """
    members: list[tuple[str, int, int]] = []
    try:
        total = Path(path).stat().st_size
        with tarfile.open(path, mode="r:") as archive:
            for member in archive:
                if not member.isreg() or not is_photo_name(member.name.rpartition("/")[2]):
                    continue
                if member.offset_data + member.size > total:
                    raise UserError(f"archive {path} is truncated inside {member.name}; copy it again")
                members.append((member.name, member.offset_data, member.size))
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UserError(f"cannot read archive {path}: {error}; expected an uncompressed tar file") from error
    return sorted(members)


def read_tar_bytes(path: str | Path, offset: int, size: int) -> bytes:
    """The bytes of one member. The file is opened anew each time: workers cannot share a position in it."""
    with open(path, "rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def decode_image(content: bytes, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 in ``image_format`` (RGB or BGR), turned as its Exif orientation says.

    The same as :func:`detectron2.data.detection_utils.read_image`, from bytes.

    Raises:
        OSError: when the bytes are not an image.
    """
    from detectron2.data import detection_utils

    with Image.open(io.BytesIO(_plain(content))) as image:
        turned = detection_utils._apply_exif_orientation(image)
        decoded: np.ndarray = detection_utils.convert_PIL_to_numpy(turned, image_format)
    return decoded


def image_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height as :func:`decode_image` returns them; reads the header only.

    Raises:
        OSError: when it is not an image.
    """
    with Image.open(io.BytesIO(_plain(source)) if isinstance(source, bytes) else source) as image:
        width, height = image.size
        sideways = image.getexif().get(0x0112) in _SIDEWAYS
    return (height, width) if sideways else (width, height)


def _plain(content: bytes) -> bytes:
    """A few members of ImageNet-21K's archives are compressed a second time."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
