"""Temporary files next to what they will replace: named by their process, and removed once it has been killed."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from prompt_core.errors import UserError

# .NAME.MACHINE-PROCESS-RANDOM.tmp.SUFFIX
_NAME = re.compile(r"\..+\.([0-9a-f]{8})-([0-9]{1,10})-[a-z0-9_]{8}\.tmp(\.[^.]*)?", re.DOTALL)
_NAME_BYTES = 120  # of a target's name; file systems allow 255 with all that is added
_SUFFIX_LENGTH = 20
# Of another machine it is not known which processes live. Nothing here writes one file for so long.
ABANDONED_SECONDS = 7 * 24 * 3600

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_IN_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors
# What libraries say of a write that fell short, without its cause: NumPy, torch and Pillow.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written|PytorchStreamWriter failed|unexpected pos |encoder error -2")


def new_temporary(target: Path) -> Path:
    """A new empty file next to ``target``, with its suffix, by which some libraries choose a format.

    Raises:
        OSError: when there cannot be one.
    """
    suffix = target.suffix if len(target.suffix) < _SUFFIX_LENGTH else ""
    handle, name = tempfile.mkstemp(prefix=_prefix(target), suffix=f".tmp{suffix}", dir=target.parent)
    os.close(handle)
    return Path(name)


def new_temporary_folder(target: Path) -> Path:
    """A new empty folder next to ``target``.

    Raises:
        OSError: when there cannot be one.
    """
    return Path(tempfile.mkdtemp(prefix=_prefix(target), suffix=".tmp", dir=target.parent))


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A folder next to ``target`` that is gone afterwards; the next run there deletes that of a killed one.

    Raises:
        OSError: when there cannot be one.
    """
    folder = new_temporary_folder(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])}.{_machine()}-{os.getpid()}-"


@functools.cache
def _machine() -> str:
    """This start of this machine, and within it the room in which a process has its number.

    Containers may share a folder, a name and the numbers of processes, and a number says nothing after a restart.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        room = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        room = f"{platform.node()} {uuid.getnode()}"
    return hashlib.sha256(room.encode()).hexdigest()[:8]


def remove_abandoned(folder: Path, now: float) -> list[Path]:
    """Delete temporary files and folders in ``folder`` whose process is dead, or that another machine left a week ago.

    Args:
        now: by the clock of the file system, which may be another machine's: of a file just made there.

    Returns:
        what was deleted.
    """
    gone = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            path = Path(entry.path)
            with contextlib.suppress(OSError):  # gone meanwhile
                if not _is_abandoned(match, now - _newest(path)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(path)
                else:
                    path.unlink()
                gone.append(path)
    return gone


def _newest(path: Path) -> float:
    """When a file, or something in a folder, was last written."""
    inside = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
    return max(item.lstat().st_mtime for item in (path, *inside))


def _is_abandoned(match: re.Match[str], age: float) -> bool:
    machine, process = match.group(1), int(match.group(2))
    if machine != _machine() or os.name != "posix":
        return age > ABANDONED_SECONDS
    return not process_lives(process)


def process_lives(process: int) -> bool:
    """Whether a process of this machine has this number; a number that no process can have counts as one that lives."""
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's
        return True
    return True


def flush_to_disk(file: Path) -> None:
    """Wait until a file's bytes are on the disk, so that a rename cannot outlive them in a power failure."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):  # a file system without it
            raise
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Wait until names in a folder are on the disk, where the system can."""
    with contextlib.suppress(OSError):
        flush_to_disk(folder)


@contextlib.contextmanager
def appending_to(path: Path) -> Iterator[None]:
    """Name ``path`` when the disk is full: a stream that is written bit by bit does not know where it goes.

    Raises:
        UserError: when it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        advice = "free some space and run again"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {advice}") from error


def failed_write(target: Path, temporary: Path, error: Exception, size: int | None) -> UserError | None:
    """The error for the user when ``temporary`` could not be written; None when ``error`` is another one.

    Args:
        size: bytes that the whole file would have, if that is known.
    """
    reason, number = _reason(error, temporary)
    if reason is None:
        return None
    written = temporary.stat().st_size if temporary.exists() else 0
    facts = f"{written:,} bytes of it were written"
    with contextlib.suppress(OSError):
        facts += f", {shutil.disk_usage(target.parent).free:,} are free there"
    if size is not None and size > written:
        missing = size - written
        if number == errno.ENOSPC:
            with contextlib.suppress(OSError):
                missing = max(missing - shutil.disk_usage(target.parent).free, 1)
        facts = f"{size:,} bytes are needed, {missing:,} are missing"
    stands = "the earlier file stands as it was" if target.exists() else "no file was left there"
    advice = "choose a writable output path"
    if number is None or number in _FULL:
        advice = "free some space or choose another place"
    return UserError(f"cannot write {target}: {reason} ({facts}); {stands}; {advice}")


def _reason(error: Exception, temporary: Path) -> tuple[str | None, int | None]:
    """Why ``temporary`` could not be written, and the system's number of it."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        of_file = error.filename is not None and os.fspath(error.filename) == str(temporary)
        ours = of_file or (error.filename is None and error.errno in _FULL)
        return (error.strerror or text, error.errno) if ours else (None, None)
    number = _FULL_IN_RUST.search(text)
    if number is not None and int(number.group(1)) in _FULL:
        return os.strerror(int(number.group(1))), int(number.group(1))
    if isinstance(error, (OSError, RuntimeError)) and _SHORT_WRITE.search(text):
        return "the disk did not take all of it", None
    return None, None
