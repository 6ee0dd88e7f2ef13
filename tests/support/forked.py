"""A command in a process of its own, forked from this one: what was imported stays, memory and time are bounded."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prompt_core.errors import run_command

CRASHED = 99  # the exit code of a process in which an error got past the command


@dataclass(frozen=True)
class Limits:
    """What a command may take.

    Attributes:
        cpu: seconds of the processor, which a busy machine does not lengthen.
        wall: seconds until it is killed, for commands that wait.
        memory: bytes beyond those of the process that it was forked from, of address space and of resident memory.
        file: bytes of one file.
    """

    cpu: int = 30
    wall: float = 180.0
    memory: int = 2 << 30
    file: int = 256 << 20


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, negative where a signal ended it, its output, seconds, bytes of memory."""

    code: int
    out: str
    err: str
    seconds: float
    memory: int


def run_forked(
    main: Callable[[], int | None],
    arguments: Sequence[str],
    folder: Path,
    texts: Path,
    environment: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Outcome:
    """Run a tool's ``main`` as its file's last line does, in ``folder``.

    Args:
        arguments: the command line, the name of the tool first.
        texts: an existing folder for what it prints, outside of ``folder``.
        environment: variables that are set besides those of this process.
    """
    limits = limits or Limits()
    start, resident = time.monotonic(), _status("VmRSS")
    with contextlib.ExitStack() as files:
        streams = [files.enter_context(open(texts / name, "w+b")) for name in ("out", "err")]
        child = os.fork()
        if child == 0:
            _in_child(main, arguments, folder, [stream.fileno() for stream in streams], environment or {}, limits)
        status, peak = _wait(child, start + limits.wall)
        printed = []
        for stream in streams:
            stream.seek(0)
            printed.append(stream.read().decode("utf-8", "backslashreplace"))
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Outcome(code, *printed, time.monotonic() - start, max(0, peak - resident))


def _wait(child: int, until: float) -> tuple[int, int]:
    """The status of a process, which is killed with all that it started when it is late; its peak of memory."""
    ended = os.pidfd_open(child)
    try:
        if not select.select([ended], [], [], max(0.0, until - time.monotonic()))[0]:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(ended)
    _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)  # what it started and left
    return status, usage.ru_maxrss * 1024


def _in_child(
    main: Callable[[], int | None],
    arguments: Sequence[str],
    folder: Path,
    streams: Sequence[int],
    environment: Mapping[str, str],
    limits: Limits,
) -> None:
    """Never returns: whatever happens, the process ends here."""
    code = CRASHED
    try:
        os.setpgid(0, 0)
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0)  # noqa: SIM115 - the process ends with them
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8") for number in (1, 2))  # noqa: SIM115
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
        sys.argv = list(arguments)
        os.environ.update(environment)
        os.chdir(folder)
        _as_a_new_process(limits)
        run_command(main)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        for flush in (sys.stdout.flush, sys.stderr.flush):
            with contextlib.suppress(Exception):
                flush()
        os._exit(code)


def _as_a_new_process(limits: Limits) -> None:
    """Bounds of the kernel; one thread, signals, warnings and handlers of logs as a new Python has them."""
    import logging
    import resource
    import tempfile
    import warnings

    import torch

    for what, bound in (
        (resource.RLIMIT_AS, _status("VmSize") + limits.memory),
        (resource.RLIMIT_CPU, limits.cpu),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (bound, bound))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    tempfile.tempdir = None
    torch.set_num_threads(1)
    warnings.resetwarnings()
    warnings.simplefilter("default")
    for name in (None, *logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)


def _status(key: str) -> int:
    """Bytes of a line of ``/proc/self/status``."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def listing(root: Path, but: Path | None = None) -> dict[str, Any]:
    """Size and time of change of every file below ``root``, links as themselves, folders by name alone."""
    found: dict[str, Any] = {}
    start, left_out, folders = len(str(root)) + 1, str(but), [str(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.path == left_out:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    found[f"{entry.path[start:]}/"] = None
                else:
                    status = entry.stat(follow_symlinks=False)
                    found[entry.path[start:]] = (status.st_size, status.st_mtime_ns)
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What was made, changed or deleted between two listings."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
