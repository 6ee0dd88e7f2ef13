"""MATLAB files from outside: what their compressed variables unpack to is counted before scipy unpacks them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from prompt_core.documents.bounds import read_bytes
from prompt_core.errors import UserError

# The largest published list, of ImageNet's devkit, has 0.4 MB and unpacks to 3.
FILE_BYTES, UNPACKED_BYTES = 64 << 20, 256 << 20

# The format of MATLAB 5 (MAT-File Format, sections 1-5 to 1-9): a header, then tags of kind and size with their data.
_HEADER, _COMPRESSED = 128, 15


def check_expansion(path: Path) -> None:
    """Refuse a file whose compressed variables unpack to far more than any published list.

    A file of another or no format is left to scipy, which has nothing to unpack in it.

    Raises:
        UserError: for such a file, or one that is absent or too large.
    """
    content = read_bytes(path, FILE_BYTES)
    order = ">" if content[126:128] == b"MI" else "<"
    place, unpacked = _HEADER, 0
    while place + 8 <= len(content):
        kind, size = struct.unpack(f"{order}II", content[place : place + 8])
        if kind == _COMPRESSED:
            unpacked += _unpacked_bytes(content[place + 8 : place + 8 + size], UNPACKED_BYTES - unpacked)
            if unpacked > UNPACKED_BYTES:
                raise UserError(f"{path} unpacks to more than {UNPACKED_BYTES:,} bytes; download it again")
        place += 8 + size


def _unpacked_bytes(compressed: bytes, limit: int) -> int:
    """Bytes that a part unpacks to; counting ends above ``limit``. A damaged part ends where the damage is."""
    reader, count = zlib.decompressobj(), 0
    try:
        while compressed and count <= limit:
            count += len(reader.decompress(compressed, 1 << 20))
            compressed = reader.unconsumed_tail
    except zlib.error:
        pass
    return count
