"""NumPy's ``.npy`` files from outside: the header is believed only where the file has as many bytes as it claims."""

from __future__ import annotations

import io
import math
import os
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from prompt_core.documents.bounds import ANNOTATION_BYTES, check_size
from prompt_core.errors import UserError
from prompt_core.visible import visible, visible_path

# Bytes of a header; NumPy's own bound of what it parses.
HEADER_BYTES = 10_000


def read_npy(path: str | os.PathLike[str], limit: int = ANNOTATION_BYTES) -> np.ndarray:
    """The array of a file, without objects.

    Raises:
        UserError: when it is absent, too large or no such file, holds objects, or its header claims another number of
            bytes than it has.
    """
    size = check_size(path, limit)
    shown = visible_path(path)
    try:
        with open(path, "rb") as stream:
            _check_header(stream, size)
        array: np.ndarray = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {shown}: {error.strerror or error}") from error
    except Exception as error:  # of what parses the header: ValueError, SyntaxError, TypeError, tokenize.TokenError, …
        raise _unreadable(shown, error) from error
    return array


def decode_npy(content: bytes, shown: str) -> np.ndarray:
    """The array of a file's bytes, without objects.

    Args:
        shown: what it is, for messages.

    Raises:
        UserError: as :func:`read_npy`.
    """
    try:
        _check_header(io.BytesIO(content), len(content))
        array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # as in read_npy
        raise _unreadable(shown, error) from error
    return array


def _check_header(stream: BinaryIO, size: int) -> None:
    if stream.read(2) == b"PK":
        raise ValueError("it is an archive of several, as savez makes it")
    stream.seek(0)
    version = npy_format.read_magic(stream)
    read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read_header(stream, max_header_size=HEADER_BYTES)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, where numbers or texts are expected")
    claimed, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if claimed != there or any(side < 0 for side in shape):
        raise ValueError(f"its header claims {claimed:,} bytes of numbers, the file has {there:,}")


def _unreadable(shown: str, error: Exception) -> UserError:
    reason = visible(" ".join(str(error).split())[:200])
    return UserError(f"{shown} could not be read as a NumPy array ({reason}); it may be truncated")
