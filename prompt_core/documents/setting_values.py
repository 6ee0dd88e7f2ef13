"""Values of settings: a text as the Python literal that it spells, and a value as the type of its default."""

from __future__ import annotations

import ast
import contextlib
from typing import Any

from prompt_core.errors import UserError
from prompt_core.visible import shortened


def decode(text: Any) -> Any:
    """The Python literal that a text spells, or the text itself."""
    if not isinstance(text, str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def of_type(key: str, value: Any, default: Any, origin: str) -> Any:
    """A value of the default's type.

    YAML has 1 for a float and text for 1e-5 and tuples, and published files a number for a list of one.

    Args:
        key: the setting, and ``origin`` where it was set, for the message.

    Raises:
        UserError: anything else.
    """
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return "" if value is None else str(value)
    value = decode(value)
    if default is None:
        return value
    if isinstance(default, float) and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    if isinstance(default, (list, tuple)):
        if isinstance(value, str):
            value = value.split(",") if value else ()
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            value = (value,)  # as a text without a comma is a list of one
        if isinstance(value, (list, tuple)):
            return type(default)(value)
    if type(value) is not type(default):
        kind = type(default).__name__
        article = "an" if kind[0] in "aeiou" else "a"
        raise UserError(f"{key} is {shortened(value)} in {origin}; {article} {kind} is expected, as {default!r}")
    return value
