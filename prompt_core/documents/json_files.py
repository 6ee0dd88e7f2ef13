"""JSON from outside: bounded in bytes, in depth and in the length of numbers."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from prompt_core.documents.bounds import ANNOTATION_BYTES, DIGITS, read_bytes
from prompt_core.errors import UserError

# Below this the collector costs nothing worth a pause.
_LARGE_BYTES = 1 << 20
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: str | os.PathLike[str], limit: int = ANNOTATION_BYTES) -> Any:
    """Read JSON.

    NaN and infinite numbers, which Python's own writer makes, are read; what they mean is for a schema to say.

    Args:
        limit: bytes that such a file has at most (:mod:`prompt_core.documents.bounds`).

    Raises:
        UserError: when the file is absent, too large or no JSON, nested beyond Python's limit, or has a number of more
            than 4,300 digits.
    """
    return decode_json(read_bytes(path, limit), str(path))


def decode_json(content: bytes, name: str) -> Any:
    """Decode JSON.

    Args:
        content: UTF-8.
        name: of the file or of the place in it, for messages.

    Raises:
        UserError: as :func:`read_json`.
    """
    import msgspec

    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        with collector_paused() if len(content) > _LARGE_BYTES else contextlib.nullcontext():
            try:
                return msgspec.json.decode(content)
            except (msgspec.DecodeError, UnicodeDecodeError):
                # Python's reader knows NaN and numbers beyond float64, and says line and column of a fault.
                return _decode_with_python(content.decode("utf-8"))
    except RecursionError as error:
        raise UserError(f"{name} is nested too deeply to be read; expected a few levels") from error
    except ValueError as error:
        if "int_max_str_digits" in str(error):
            raise UserError(f"{name} holds a number of more than {DIGITS:,} digits") from error
        raise UserError(f"{name} is not valid JSON ({error}); it may be truncated") from error


def _decode_with_python(text: str) -> Any:
    value = json.loads(text)
    if _HALF_CHARACTER.search(text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character can neither be shown nor written
    return value


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Without garbage collections, which walk through millions of fresh objects again and again and free none."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
