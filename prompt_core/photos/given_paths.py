"""Paths as a person gives them on a command line: also as a list, in a file or on standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from prompt_core.errors import UserError
from prompt_core.visible import visible_path

STANDARD_INPUT = "-"
LIST_SIGN = "@"


def given_paths(given: Sequence[str | Path]) -> Iterator[Path]:
    """The paths, with ``-`` and ``@FILE`` replaced by the lines of standard input and of a file.

    Blank lines count for nothing. A file that is called ``@FILE`` itself is a path as any other.

    Raises:
        UserError: when a list is absent or names nothing.
    """
    for text in map(str, given):
        if text == STANDARD_INPUT:
            yield from _paths_in(sys.stdin.buffer.read(), "standard input")
        elif text.startswith(LIST_SIGN) and not Path(text).exists():
            file = Path(text[len(LIST_SIGN) :])
            if not file.is_file():
                raise UserError(f"the list of photos {visible_path(file)} does not exist")
            yield from _paths_in(file.read_bytes(), visible_path(file))
        else:
            yield Path(text)


def _paths_in(content: bytes, where: str) -> Iterator[Path]:
    # Bytes, as file names are: they need not be text in any encoding.
    lines = [line.strip(b"\r") for line in content.split(b"\n") if line.strip()]
    if not lines:
        raise UserError(f"{where} lists no photo; a path in each line is expected")
    for line in lines:
        if b"\0" in line:
            raise UserError(f"{where} is no list of photos: it holds zero bytes; a path in each line is expected")
        yield Path(os.fsdecode(line))
