"""Which images chose an epoch, in few bytes: so that they are recognised wherever they are scored.

A mark is an image's size and the beginning of the hash of its bytes. Other folders, other layouts, subsets and deleted
neighbours do not hide an image; two different images of one mark are not to be expected (48 bits beside the size).
Of a large set a fixed share of the marks is kept, by which the set is recognised, though not each image of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING

from prompt_core.errors import UserError

if TYPE_CHECKING:
    from prompt_core.data.images import ImageSet

SIZE_BYTES, HASH_BYTES = 4, 6
_MARK = SIZE_BYTES + HASH_BYTES
MOST = 20_000  # marks, so that a prompt's file stays small beside its photos


def image_marks(images: ImageSet) -> str:
    """Marks of the images, sorted, as base64: 10 bytes for each image, of the :data:`MOST` lowest hashes.

    Every file is read once. Files that are missing or cannot be read have none.
    """
    marks = {_mark(images, index, size) for index, size in enumerate(images.file_sizes().tolist())}
    kept = sorted(marks - {b""}, key=lambda mark: mark[SIZE_BYTES:])[:MOST]
    return base64.b64encode(b"".join(sorted(kept))).decode("ascii")


def any_marked(images: ImageSet, marks: str) -> bool:
    """Whether an image is among those that ``marks`` were made of; only files of a size that occurs there are read.

    Raises:
        UserError: text that :func:`image_marks` has not made.
    """
    try:
        packed = base64.b64decode(marks, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"the marks of the images that chose the epoch are damaged ({error}); learn again") from error
    if len(packed) % _MARK:
        raise UserError(f"the marks of the images that chose the epoch are {len(packed)} bytes, no multiple of {_MARK}")
    known = {packed[start : start + _MARK] for start in range(0, len(packed), _MARK)}
    known_sizes = {mark[:SIZE_BYTES] for mark in known}
    return any(
        _size(size) in known_sizes and _mark(images, index, size) in known
        for index, size in enumerate(images.file_sizes().tolist())
    )


def _size(size: int) -> bytes:
    return b"" if size < 0 else min(size, 2 ** (8 * SIZE_BYTES) - 1).to_bytes(SIZE_BYTES, "big")


def _mark(images: ImageSet, index: int, size: int) -> bytes:
    """Empty for a file that cannot be read."""
    if size < 0:
        return b""
    try:
        content = images._read_bytes(index)
    except OSError:
        return b""
    return _size(size) + hashlib.sha256(content).digest()[:HASH_BYTES]
