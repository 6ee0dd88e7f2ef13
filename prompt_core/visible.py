"""Texts from outside (class names, paths, messages of libraries) as a terminal, a log or a page may show them.

A text is shown, never obeyed: what would move a cursor, colour a line, reverse its direction or end it is written as
its escape sequence, and markup is plain text.
"""

from __future__ import annotations

import re
from typing import Any

# C0 and C1 controls, signs that reverse or hide what follows, separators of lines, and halves of characters, which no
# terminal can encode. Joiners of emoji and marks of right-to-left scripts stay.
_OBEYED = "\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff\ud800-\udfff"
_EVERYWHERE = re.compile(f"[{_OBEYED}]")
_WITHIN_LINES = re.compile(f"(?![\n\t])[{_OBEYED}]")


def visible(text: str, lines: bool = False) -> str:
    r"""``text`` with its control characters as escapes such as ``\x1b``.

    Args:
        lines: keep line breaks and tabs, for texts of several lines.
    """
    return (_WITHIN_LINES if lines else _EVERYWHERE).sub(_escape, text)


def has_control_characters(text: str) -> bool:
    """Whether :func:`visible` would change it."""
    return _EVERYWHERE.search(text) is not None


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
