"""Errors for the user to fix: one line that says what was given, what was expected and what to do."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_core.runs.signals import ending_like_ctrl_c
from prompt_core.visible import say, show_warnings_and_logs, visible_path

DEBUG = "POMP_DEBUG"  # the environment variable that shows where an error came from
OWN_FOLDERS = ("prompt_core", "pomp_engine", "pomp_det", "pomp_seg", "pomp_lab", "tools", "datasets")
BROKEN_PIPE = 141  # what a shell reports of a command whose reader has gone: 128 + SIGPIPE

_ADVICE = {
    errno.ENOSPC: "free some space there, or choose another place",
    errno.EDQUOT: "free some of your quota, or choose another place",
    errno.EACCES: "give this user access to it, or choose another place",
    errno.EPERM: "give this user access to it, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or use fewer workers",
    errno.ENFILE: "raise the limit of open files (ulimit -n), or use fewer workers",
    errno.ENOMEM: "use smaller batches or fewer workers",
}
# Of torch's RuntimeErrors: its allocators of the CPU, and CUDA's libraries.
_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "cannot allocate memory", "ALLOC_FAILED")
_WORKERS_TRACEBACK = "Traceback (most recent call last):"  # within the message of an error in another process


class UserError(ValueError):
    """Bad input. The message is one line; command line tools print it and exit with code 2."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """A hint such as ``; nearest: 'ViT-B-16', 'ViT-B-32'``, or an empty string when nothing is close."""
    lowered = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), lowered, n=count, cutoff=0.5)
    return "; nearest: " + ", ".join(repr(lowered[match]) for match in matches) if matches else ""


def run_command(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and exit, with one line on standard error whatever goes wrong.

    The exit code is 0 on success; 2 for what the user can mend (:class:`UserError`, files, disks, memory); 1 for an
    error of a library or of this toolkit; 130 on Ctrl-C, SIGTERM and SIGHUP; 141, without a word, when the reader of
    the output has gone.
    With ``POMP_DEBUG=1`` in the environment the traceback comes before the line.
    """
    show_warnings_and_logs()
    try:
        try:
            with ending_like_ctrl_c():
                code = main() or 0
        except SystemExit:
            _flush()
            raise
        _flush()
    except KeyboardInterrupt:
        _complain("interrupted")
        code = 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            code = BROKEN_PIPE
        else:
            code = tell_failure(error)
        _drop_output()
    sys.exit(code)


def tell_failure(error: Exception) -> int:
    """Say in one line on standard error what went wrong, after the traceback where ``POMP_DEBUG`` asks for it.

    Returns:
        the exit code.
    """
    line, code = describe_failure(error)
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        _complain("".join(traceback.format_exception(error)).rstrip())
    _complain(f"error: {line}")
    return code


def describe_failure(error: Exception) -> tuple[str, int]:
    """What went wrong in one line, and the exit code: 2 for what the user can mend, else 1."""
    if isinstance(error, UserError):
        return _one_line(_last_of_worker(str(error)).removeprefix(f"{UserError.__module__}.UserError: ")), 2
    if is_out_of_memory(error):
        return f"out of memory ({_first_sentence(error)}); use smaller batches, fewer workers or a larger machine", 2
    if isinstance(error, OSError) and error.errno is not None:
        return _refused_by_the_system(error), 2
    if isinstance(error, UnicodeDecodeError):
        bad = f"byte 0x{error.object[error.start]:02x} at position {error.start:,}"
        return f"a file is not text in {error.encoding}: {bad} ({_place(error)}); save it as UTF-8", 2
    if isinstance(error, UnicodeEncodeError):
        sign = ascii(error.object[error.start])
        return f"{sign} cannot be written in {error.encoding}; set PYTHONUTF8=1 in the environment", 2
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from "):  # pathlib's, before Python 3.13
        return (
            f"{_one_line(str(error))[len('Symlink loop from ') :]}: {os.strerror(errno.ELOOP)}; choose another path",
            2,
        )
    shows = f"{DEBUG}=1 shows where"
    if isinstance(error, RecursionError):
        place = _place(error)
        if place == "inside pathlib":
            return "a path has too many folders below each other; choose a shorter one", 2
        return f"something is nested too deeply, {place}; {shows}", 1
    return f"{Path(sys.argv[0]).name or 'the command'} failed {_place(error)}: {_first_sentence(error)}; {shows}", 1


def _refused_by_the_system(error: OSError) -> str:
    reason = error.strerror or str(error)
    files = " -> ".join(visible_path(name) for name in (error.filename, error.filename2) if name is not None)
    advice = _ADVICE.get(error.errno or 0)
    return _one_line(f"{files or 'the system refused'}: {reason}" + (f"; {advice}" if advice else ""))


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was lacking, of the machine or of a GPU; torch says so by several kinds of errors."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_TEXTS)


def _place(error: Exception) -> str:
    """Where an error was raised: ``inside torch``, or file and line where it is a file of the toolkit."""
    if _WORKERS_TRACEBACK in str(error):
        return "in a process that it started"
    raised_in = type(error).__module__.partition(".")[0]
    places = list(traceback.walk_tb(error.__traceback__))
    if not places:
        return f"inside {raised_in}"
    frame, line = places[-1]
    with contextlib.suppress(ValueError):
        file = Path(frame.f_code.co_filename).resolve().relative_to(Path(__file__).resolve().parent.parent)
        if file.parts[0] in OWN_FOLDERS:
            # compiled libraries leave no frame, but they have exceptions of their own
            compiled = raised_in not in (*OWN_FOLDERS, "builtins", "__main__")
            return f"inside {raised_in}" if compiled else f"in {file.as_posix()}, line {line}"
    return f"inside {frame.f_globals.get('__name__', '').partition('.')[0]}"


def _first_sentence(error: Exception, length: int = 300) -> str:
    """The kind of an error and the beginning of its message."""
    kind, text = type(error).__name__, str(error)
    if _WORKERS_TRACEBACK in text:
        return _one_line(_last_of_worker(text))[:length]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    sentence = lines[0].partition(". ")[0].rstrip(".:;") if lines else ""
    if len(sentence) > length:
        sentence = f"{sentence[: length - 1]}…"
    return _one_line(f"{kind}: {sentence}" if sentence else kind)


def _last_of_worker(text: str) -> str:
    """The error itself, where a message is the traceback of another process."""
    if _WORKERS_TRACEBACK not in text:
        return text
    return text.strip().splitlines()[-1]


def _one_line(text: str, length: int = 2000) -> str:
    """A text without line breaks; what was given may be endless, so that its middle is left out."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length // 2]} … {text[3 - length // 2 :]}"


def _flush() -> None:
    """Write what is still held back, while an error can be told."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more, as of ``tool | head``."""
    if sys.stdout is None:
        return False
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # an error is reported unasked
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # Windows; an output that is no file
        return False


def _drop_output() -> None:
    """Lose what cannot be written: at the end of the process Python would try, and complain, once more."""
    try:
        _flush()
        return
    except OSError:
        pass
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        say(text, error=True)
