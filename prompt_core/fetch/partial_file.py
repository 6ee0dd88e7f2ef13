"""A download that is not complete: its bytes, and what is needed to go on with it in another process."""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, read_json, write_json

try:
    import fcntl

    _LOCKS: types.ModuleType | None = fcntl
except ImportError:  # Windows: two processes at the same file are not noticed there
    _LOCKS = None


@dataclass(frozen=True)
class Origin:
    """What the bytes of a part belong to.

    Attributes:
        address: where they come from.
        validator: strong ``ETag``, else ``Last-Modified``, of the file there; None when the server gives neither.
        total: bytes of the whole file, or None when the server does not say.
    """

    address: str
    validator: str | None = None
    total: int | None = None


class PartialFile:
    """``NAME.part`` next to the file that it becomes, with ``NAME.part.json`` for its origin.

    Written without a buffer: what has arrived is there after a kill.

    Attributes:
        origin: of the bytes that are there.
    """

    def __init__(self, target: Path, stream: BinaryIO) -> None:
        self._target, self._stream = target, stream
        self.origin: Origin | None = self._read_origin()

    @property
    def path(self) -> Path:
        """The file of the bytes that have arrived."""
        return part_path(self._target)

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return os.fstat(self._stream.fileno()).st_size

    def restart(self, origin: Origin) -> None:
        """Drop all bytes; those that follow are of ``origin``."""
        self._stream.truncate(0)
        write_json(_origin_path(self._target), asdict(origin))
        self.origin = origin

    def append(self, data: bytes) -> None:
        """Write at the end.

        Raises:
            UserError: when the disk is full or gone.
        """
        try:
            self._stream.write(data)
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror or error}; free some space, and the download goes on"
            ) from error

    def discard(self) -> None:
        """Delete the bytes: they are wrong, and going on with them is of no use."""
        self.path.unlink(missing_ok=True)
        _origin_path(self._target).unlink(missing_ok=True)

    def finish(self) -> None:
        """Rename the part to the file."""
        self.path.replace(self._target)
        _origin_path(self._target).unlink(missing_ok=True)

    def _read_origin(self) -> Origin | None:
        with contextlib.suppress(UserError, TypeError):
            return Origin(**read_json(_origin_path(self._target)))
        return None


def part_path(target: Path) -> Path:
    """Where an incomplete download of ``target`` lies."""
    return target.with_name(target.name + ".part")


def _origin_path(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def forget_part(target: Path) -> None:
    """Delete what says where a part came from, if the part is gone: the last step of a download that was killed."""
    if target.is_file() and not part_path(target).exists():
        _origin_path(target).unlink(missing_ok=True)


@contextlib.contextmanager
def open_part(target: Path) -> Iterator[PartialFile]:
    """The part of ``target``, new or left by an earlier call, for one process at a time.

    Nothing is left when not a byte has arrived: no empty file, and no folder that was made for it.

    Raises:
        UserError: when another process holds it, or its folder cannot be written.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    make_output_folder(target.parent)
    path = part_path(target)
    held = False
    while not held:
        with open(path, "ab", buffering=0) as stream:
            _lock(stream, target)
            # Another process may have finished between the two lines above; then this is not the part any more.
            held = path.is_file() and os.path.samestat(os.fstat(stream.fileno()), path.stat())
            if held:
                part = PartialFile(target, stream)
                try:
                    yield part
                finally:
                    if path.is_file() and part.size == 0:
                        part.discard()
                    for folder in made:
                        with contextlib.suppress(OSError):  # not empty
                            folder.rmdir()


def _lock(stream: BinaryIO, target: Path) -> None:
    if _LOCKS is None:
        return
    try:
        _LOCKS.flock(stream, _LOCKS.LOCK_EX | _LOCKS.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{target} is being fetched by another process; wait until it is done") from None
    except OSError:
        pass  # a file system without locks
