"""Errors for the user to fix: one line that says what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable

from prompt_core.visible import say, show_warnings_and_logs


class UserError(ValueError):
    """Bad input. The message is one line; command line tools print it and exit with code 2."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """A hint such as ``; nearest: 'ViT-B-16', 'ViT-B-32'``, or an empty string when nothing is close."""
    lowered = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), lowered, n=count, cutoff=0.5)
    return "; nearest: " + ", ".join(repr(lowered[match]) for match in matches) if matches else ""


def run_command(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and exit: 0 on success, 2 with one line on a :class:`UserError`, 130 on Ctrl-C."""
    show_warnings_and_logs()
    try:
        code = main() or 0
    except UserError as error:
        say(f"error: {' '.join(str(error).split())}", error=True)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
