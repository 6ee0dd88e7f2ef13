"""Photos inside uncompressed tar archives, as ImageNet-21K is distributed (one archive per synset): read in place."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np

from prompt_core.data.open_photo import PHOTO_BYTES, UnreadableImage, open_photo, upright_size
from prompt_core.data.photo_files import is_photo_name
from prompt_core.data.tar_members import tar_members


def index_tar(path: str | Path) -> list[tuple[str, int, int]]:
    """Photos in an archive as (member name, offset, size) in bytes, sorted by name.

    Raises:
        UserError: when it is not an uncompressed tar archive, or truncated.
    """
    members = [
        (member.name, member.offset_data, member.size)
        for member, _ in tar_members(Path(path))
        if is_photo_name(member.name.rpartition("/")[2])
    ]
    return sorted(members)


def read_tar_bytes(path: str | Path, offset: int, size: int) -> bytes:
    """The bytes of one member. The file is opened anew each time: workers cannot share a position in it.

    Raises:
        OSError: when the archive cannot be read, or the member is larger than a photo may be.
    """
    if size > PHOTO_BYTES:
        raise OSError(f"a member of {size:,} bytes, where a photo has at most {PHOTO_BYTES:,}")
    with open(path, "rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def decode_image(source: str | Path | bytes, image_format: str, name: str | None = None) -> np.ndarray:
    """(H, W, 3) uint8 in ``image_format`` (RGB or BGR), as :func:`prompt_core.data.open_photo.open_photo` decodes it.

    Raises:
        UnreadableImage: when it is not an image, or one beyond its bounds.
    """
    from detectron2.data import detection_utils

    photo = open_photo(_plain(source) if isinstance(source, bytes) else source, name)
    decoded: np.ndarray = detection_utils.convert_PIL_to_numpy(photo, image_format)
    return decoded


def image_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height as :func:`decode_image` returns them; reads the header only.

    Raises:
        UnreadableImage: when it is not an image, or one beyond its bounds.
    """
    return upright_size(_plain(source) if isinstance(source, bytes) else source)


def _plain(content: bytes) -> bytes:
    """A few members of ImageNet-21K's archives are compressed once more."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            plain = stream.read(PHOTO_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableImage("in memory", f"a compressed photo that is damaged ({error})") from error
    if len(plain) > PHOTO_BYTES:
        raise UnreadableImage("in memory", f"it unpacks to more than {PHOTO_BYTES:,} bytes")
    return plain
