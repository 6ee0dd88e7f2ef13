"""Lists on the command line of experiments: names of rows, numbers of classes, seeds."""

from __future__ import annotations

from collections.abc import Collection

from prompt_core.errors import UserError, nearest
from prompt_core.ranges import SEED, Range
from prompt_core.visible import shortened


def chosen(text: str | None, known: Collection[str], what: str, separator: str = ";") -> list[str]:
    """The names that a text joins; all known ones for None.

    Args:
        what: a name stands for, such as ``row``.

    Raises:
        UserError: for an unknown name.
    """
    names = list(known) if text is None else [name.strip() for name in text.split(separator)]
    for name in names:
        if name not in known:
            expected = f"{separator} ".join(known)
            raise UserError(f"unknown {what} {name!r}{nearest(name, known)}; expected some of: {expected}")
    return list(dict.fromkeys(names))


def whole_numbers(option: str, text: str, allowed: Range = SEED) -> list[int]:
    """``0,1,2`` as numbers, each once.

    Raises:
        UserError: for anything else.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not allowed.holds(numbers):
        raise UserError(f"{option} is {shortened(text)}; expected whole numbers ({allowed}) separated by commas")
    return list(dict.fromkeys(numbers))
