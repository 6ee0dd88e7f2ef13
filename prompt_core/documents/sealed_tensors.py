"""Safetensors files with a seal: a hash of all that they hold, so that a flipped bit is noticed.

The format has no checksum. The seal is one more entry of the metadata, ``content_sha256``, which other readers ignore.
The header is written in one order, for the library's own differs from process to process.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import IO, Any

SEAL, KIND = "content_sha256", "sha256:"
_PART = 1 << 20  # bytes


def sealed_tensors(content: bytes) -> bytes:
    """A safetensors file (as bytes) with the seal in its metadata, and with its header in one order."""
    header, rest = _header(content[:8], content[8:])
    metadata = header.setdefault("__metadata__", {})
    metadata.pop(SEAL, None)
    digest = _digest(header)
    digest.update(rest)
    metadata[SEAL] = _stated(digest)
    text = canonical(header)
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    return struct.pack("<Q", len(text)) + text + rest


def is_damaged(path: Path) -> bool:
    """Whether a file is not what its seal says; False for one without a seal.

    Raises:
        ValueError: when its header cannot be read.
        OSError: when the file cannot.
    """
    with open(path, "rb") as stream:
        header = _read_header(stream)
        metadata = header.get("__metadata__", {})
        # A bit that is flipped within the seal's own name, or within its kind, leaves the other.
        seals = [key for key, value in metadata.items() if key == SEAL or str(value).startswith(f'"{KIND}')]
        if not seals:
            return False
        stated = metadata.pop(seals[0])
        digest = _digest(header)
        while part := stream.read(_PART):
            digest.update(part)
    return seals != [SEAL] or stated != _stated(digest)


def _read_header(stream: IO[bytes]) -> dict[str, Any]:
    length = stream.read(8)
    return _header(length, stream.read(_length(length)))[0]


def _header(length: bytes, content: bytes) -> tuple[dict[str, Any], bytes]:
    size = _length(length)
    try:
        header = json.loads(content[:size])
    except RecursionError as error:
        raise ValueError("the header is nested too deeply") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise ValueError("the header is no object")
    return header, content[size:]


def _length(stored: bytes) -> int:
    size = int.from_bytes(stored, "little")
    if len(stored) < 8 or size > 100_000_000:  # the format's own limit
        raise ValueError("the header's length is damaged")
    return size


def canonical(header: Any) -> bytes:
    """JSON in one form, whatever the order of keys."""
    return json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _stated(digest: Any) -> str:
    return json.dumps(KIND + digest.hexdigest())  # all values of the metadata are JSON


def _digest(header: dict[str, Any]) -> Any:
    return hashlib.sha256(canonical(header))
