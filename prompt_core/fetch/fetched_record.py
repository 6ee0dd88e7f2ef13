"""Trust on first use: the sha256 of a file that nobody publishes one for is written down, and compared from then on.

``NAME.fetched.json`` beside the file, and left there when an archive is unpacked and deleted.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from prompt_core.errors import UserError
from prompt_core.files import read_json, write_json


def record_path(path: Path) -> Path:
    """Where the checksum of ``path`` is written down."""
    return path.with_name(path.name + ".fetched.json")


def remembered_sha256(path: Path) -> str | None:
    """The sha256 that was written down for ``path``, or None when it was never fetched.

    Raises:
        UserError: when the record is damaged.
    """
    record = record_path(path)
    if not record.is_file():
        return None
    known = read_json(record)
    if not isinstance(known, dict) or not isinstance(known.get("sha256"), str):
        raise UserError(f"{record} holds no sha256; delete it if {path} is to be trusted anew")
    return str(known["sha256"])


def remember(path: Path, address: str | None, size: int, sha256: str) -> None:
    """Write down the sha256 of ``path``, which came from ``address`` (None: it was there already)."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_json(record_path(path), {"address": address, "size": size, "sha256": sha256, "date": now})
