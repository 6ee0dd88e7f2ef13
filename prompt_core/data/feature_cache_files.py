"""The files of a feature cache entry: written in a temporary folder, published by one rename, old leavings removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prompt_core.errors import UserError

HEADER_BYTES = 128
_STALE_SECONDS = 24 * 3600


def npy_header(shape: tuple[int, ...]) -> bytes:
    """A version 1.0 .npy header of fixed length, so that the number of rows can be filled in at the end."""
    text = repr({"descr": "<f2", "fortran_order": False, "shape": tuple(int(size) for size in shape)})
    prefix = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return prefix + text.encode("latin1").ljust(HEADER_BYTES - 11) + b"\n"


@contextlib.contextmanager
def writing_folder(entry: Path) -> Iterator[Path]:
    """A temporary folder beside ``entry``, gone at the end unless it was renamed; write errors become UserError."""
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", suffix=".tmp", dir=entry.parent))
    except OSError as error:
        raise UserError(f"cannot write the feature cache {entry.parent}: {error.strerror or error}") from error
    try:
        yield temporary
    except OSError as error:
        raise UserError(
            f"cannot write the feature cache {entry.parent}: {error.strerror or error}; "
            "free space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish(temporary: Path, entry: Path, complete: Callable[[], bool]) -> None:
    """Rename ``temporary`` to ``entry``; an entry that another run completed in the meantime is kept."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o777 & ~umask)
    for _ in range(3):
        try:
            temporary.rename(entry)
            return
        except OSError:
            if complete():
                return
            if not entry.exists():
                raise
        # a damaged entry is in the way
        with contextlib.suppress(OSError):
            broken = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", suffix=".tmp", dir=entry.parent))
            entry.rename(broken / "broken")
            shutil.rmtree(broken, ignore_errors=True)
    raise UserError(f"cannot replace the damaged feature cache entry {entry}; delete it and run again")


def remove_stale(folder: Path, key: str) -> None:
    """Delete what killed runs left of this entry: temporary folders that nobody wrote to for a day."""
    for path in folder.glob(f".{key}.*.tmp"):
        with contextlib.suppress(OSError):
            newest = max(item.stat().st_mtime for item in (path, *path.iterdir()))
            if time.time() - newest > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
