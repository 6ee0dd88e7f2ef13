"""One run at a time in an output folder.

The file ``.running`` says who is there: host, process and since when. Its holder has a POSIX lock on it, which the
system drops when the process dies (children that it forked do not keep it), and touches it every few seconds. A file
left by a killed run is taken over: on the same machine at once, on another of a shared file system once it is seen not
to be touched any more, for there the lock may not reach.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prompt_core.errors import UserError
from prompt_core.files import make_output_folder
from prompt_core.temporary_files import process_lives
from prompt_core.visible import say

LOCK_FILE = ".running"
TOUCHED_EVERY, WATCHED_FOR = 5.0, 20.0  # seconds
LARGEST_NUMBER = 2**31 - 1  # of a process
_held: set[Path] = set()  # a POSIX lock does not hold against its own process
_taking = threading.Lock()


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike[str], again: bool = True) -> Iterator[None]:
    """Hold an output folder, which is made where it is absent.

    Args:
        again: whether the same process may take it again within; False where several of its threads may want to.

    Raises:
        UserError: when another process holds it, saying which, or when it cannot be written.
    """
    path = make_output_folder(folder).resolve() / LOCK_FILE
    with _taking:
        if path in _held:
            if not again:
                raise UserError(f"another run of this process is in {path.parent}")
            handle = None
        else:
            handle = _take(path)
            _held.add(path)
    if handle is None:
        yield
        return
    done = threading.Event()
    try:
        threading.Thread(target=_touch, args=(path, done), name="lock of the output folder", daemon=True).start()
        yield
    finally:
        _held.discard(path)
        done.set()
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _take(path: Path) -> int:
    """An open file with the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locks = _lock(handle)
            holder = _holder(handle)
            if locks is False or _is_alive(holder, path, by_system=locks is True):
                who = (
                    f"process {holder.get('process', 'unknown')} on {holder.get('host', 'an unknown host')}, since "
                    f"{holder.get('since', 'an unknown time')}"
                )
                raise UserError(
                    f"another run is in {path.parent}: {who}; wait for it, choose another --output, or delete "
                    f"{path.name} there if that run is dead"
                )
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(handle).st_ino:
                    _write(handle)
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder ended and removed it in between


def _lock(handle: int) -> bool | None:
    """Whether the lock was free; None where the file system has no locks."""
    try:
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except (ImportError, OSError):
        return None
    return True


def _holder(handle: int) -> dict[str, Any]:
    """What the file says; empty for a new or damaged one."""
    with contextlib.suppress(ValueError):
        document = json.loads(os.pread(handle, 4096, 0))
        if isinstance(document, dict):
            return document
    return {}


def _write(handle: int) -> None:
    since = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    text = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since})
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _is_alive(holder: dict[str, Any], path: Path, by_system: bool) -> bool:
    """Whether a run that left its name still goes, though its lock is free or there are no locks."""
    if not holder:
        return False
    if holder.get("host") == socket.gethostname():
        return not by_system and _runs(holder.get("process"))
    say(f"{path.parent} was held on {holder.get('host')}: watching for {WATCHED_FOR:.0f} s whether that run still goes")
    before, deadline = path.stat().st_mtime_ns, time.monotonic() + WATCHED_FOR
    while time.monotonic() < deadline:
        time.sleep(min(1.0, WATCHED_FOR))
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime_ns != before:
                return True
    return False


def _runs(process: Any) -> bool:
    if not isinstance(process, int) or not 0 < process <= LARGEST_NUMBER or process == os.getpid():
        return False
    return process_lives(process)


def _touch(path: Path, done: threading.Event) -> None:
    while not done.wait(TOUCHED_EVERY):
        with contextlib.suppress(OSError):
            os.utime(path)
