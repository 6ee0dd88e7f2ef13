"""Values from outside against a schema of msgspec; a fault is one line with its place in the document."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from prompt_core.documents.json_files import collector_paused
from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible

T = TypeVar("T")

# What fits NumPy's and every scorer's arrays.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# NaN is in no range.
Finite = Annotated[float, msgspec.Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]

# Converted copies of this many items live at a time.
_CHUNK = 10_000
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
# Bounds of msgspec in words, in this order.
_BOUNDS = (
    (re.compile(r"`float` [<>]= -?1\.7976931348623157e\+308"), "a finite number"),
    (re.compile(r"`int` (<= 9223372036854775807|>= -9223372036854775808)"), "a whole number of 64 bits"),
    (re.compile(r" of length >= "), " of a length of at least "),
    (re.compile(r" of length <= "), " of a length of at most "),
    (re.compile(r" >= "), " of at least "),
    (re.compile(r" <= "), " of at most "),
    (re.compile(r" > "), " above "),
    (re.compile(r" < "), " below "),
)
_PLACE = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_MISSING = re.compile(r"Object missing required field `(\w+)`")


def check(value: Any, expected: type[T] | Any, path: str | os.PathLike[str], place: str = "") -> T:
    """``value`` as the type that the schema describes.

    Args:
        expected: a type or :class:`msgspec.Struct`; keys that a struct does not name are left alone.
        path: the file, for messages.
        place: where in the document the value is, such as ``annotations``.

    Raises:
        UserError: naming the file, the place, what is there and what is expected.
    """
    try:
        converted: T = msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise UserError(f"{visible(str(path))}: {_sentence(value, str(error), place)}") from error
    except RecursionError as error:
        raise UserError(f"{visible(str(path))} is nested too deeply; expected a few levels") from error
    return converted


def check_each(items: Sequence[Any], expected: type, path: str | os.PathLike[str], place: str) -> None:
    """Check each item of a long list; only part of it is converted at a time.

    Raises:
        UserError: as :func:`check`.
    """
    parts = list[expected]  # type: ignore[valid-type]
    with collector_paused():
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            try:
                msgspec.convert(chunk, parts)
            except (msgspec.ValidationError, RecursionError):
                for number, item in enumerate(chunk, start):
                    check(item, expected, path, f"{place}[{number}]")
                raise


def misfits(items: Sequence[Any], expected: type) -> set[int]:
    """Positions of the items of a long list that do not fit a schema."""
    parts = list[expected]  # type: ignore[valid-type]
    wrong: set[int] = set()
    with collector_paused():
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            if not _fits(chunk, parts):
                wrong |= {number for number, item in enumerate(chunk, start) if not _fits(item, expected)}
    return wrong


def _fits(value: Any, expected: Any) -> bool:
    try:
        msgspec.convert(value, expected)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


def _sentence(value: Any, message: str, place: str) -> str:
    found = _PLACE.search(message)
    inner = found.group(1) if found else ""
    what = message[: found.start()] if found else message
    where = visible((place + inner).removeprefix(".")) or "the document"
    if missing := _MISSING.fullmatch(what):
        return f"{where} has no {missing.group(1)!r}; add it, or download the file again"
    what = re.sub(r", got (`\w+`|\d+)$", "", what).replace("Expected ", "")
    for bound, words in _BOUNDS:
        what = bound.sub(words, what)
    wanted = re.sub(r"`([^`]+)`", _in_words, what)
    if "[...]" in inner or "`key` in" in message:  # the key is not said
        return f"{where}: {wanted} is expected"
    for name, number in _STEP.findall(inner):
        value = value[name] if name else value[int(number)]
    return f"{where} is {shortened(value)}; {wanted} is expected"


def _in_words(match: re.Match[str]) -> str:
    kinds = [_WORDS.get(kind, kind) for kind in match.group(1).split(" | ")]
    return " or ".join(kinds)
