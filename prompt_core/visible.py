"""Texts from outside (class names, paths, messages of libraries) as a terminal, a log or a page may show them.

A text is shown, never obeyed: what would move a cursor, colour a line, reverse its direction or end it is written as
its escape sequence, and markup is plain text.
"""

from __future__ import annotations

import errno
import logging
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# C0 and C1 controls, signs that reverse or hide what follows, separators of lines, and halves of characters, which no
# terminal can encode. Joiners of emoji and marks of right-to-left scripts stay.
_OBEYED = "\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff\ud800-\udfff"
_EVERYWHERE = re.compile(f"[{_OBEYED}]")
_BREAKING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WITHIN_LINES = re.compile(f"(?![\n\t])[{_OBEYED}]")

_format_warning = warnings.formatwarning


def visible(text: str, lines: bool = False) -> str:
    r"""``text`` with its control characters as escapes such as ``\x1b``.

    Args:
        lines: keep line breaks and tabs, for texts of several lines.
    """
    return (_WITHIN_LINES if lines else _EVERYWHERE).sub(_escape, text)


def visible_path(path: Any, length: int = 300) -> str:
    """A path for a message, cut at its beginning where it is longer than any that a person would write."""
    shown = visible(str(path))
    return shown if len(shown) <= length else f"…{shown[1 - length :]}"


def is_one_line(text: str) -> bool:
    """Whether a text has no control character, no line break and no half of a character."""
    return _BREAKING.search(text) is None


def shortened(value: Any, length: int = 60) -> str:
    """A value for a message: as Python writes it, cut to ``length`` characters, on one line."""
    if isinstance(value, int) and value.bit_length() > 4 * length:
        return f"a whole number of {value.bit_length():,} bits"
    if isinstance(value, str | bytes):
        shown = repr(value[: length + 1])
    elif isinstance(value, list | tuple):
        shown = repr(value[:length])
    elif isinstance(value, dict):
        shown = repr(dict(list(value.items())[:length]))
    else:
        shown = repr(value)
    return visible(shown if len(shown) <= length else f"{shown[: length - 1]}…")


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def say(text: str, error: bool = False) -> None:
    """Print a text that may hold names or paths from outside, at once; lines and tabs stay.

    Args:
        error: print to standard error.
    """
    stream = sys.stderr if error else sys.stdout
    shown = visible(text, lines=True)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def plain_console(**options: Any) -> Console:
    """A console of rich on which texts in tables are shown as they are: no markup, no emoji codes, no control signs.

    Args:
        options: of :class:`rich.console.Console`.
    """
    from rich.console import Console

    class PlainConsole(Console):
        def render_str(self, text: str, **styles: Any) -> Text:
            return super().render_str(visible(text, lines=True), **{**styles, "markup": False, "emoji": False})

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "the reader of the output has gone")  # rich would end with exit code 1

    return PlainConsole(markup=False, emoji=False, highlight=False, **options)


def show_record(record: logging.LogRecord) -> bool:
    """A filter for handlers of a log: its texts are shown, not obeyed."""
    record.msg, record.args = visible(record.getMessage(), lines=True), None
    return True


def show_warnings_and_logs() -> None:
    """Warnings, and records of logs that nobody has set up, are shown, not obeyed, from here on."""

    def formatted(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
        return visible(_format_warning(message, category, *place, **more), lines=True)

    warnings.formatwarning = formatted
    # Detectron2 asks torch at every photo whether it is traced, in a way that torch thinks ambiguous.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    if logging.lastResort is not None:
        logging.lastResort.addFilter(show_record)
