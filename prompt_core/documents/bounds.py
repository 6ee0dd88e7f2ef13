"""Bounds on files from outside, applied before memory is taken."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from prompt_core.errors import UserError

# Lists of photos and annotations: LVIS's training file has 1.1 GB, that of Objects365 about 6 GB.
ANNOTATION_BYTES = 16 << 30
# Tables and lists of names, of a line per photo or class: ImageNet-21K's 14 million photos take about 1 GB.
TABLE_BYTES = 2 << 30
# Written by people: lists of words, settings of a data set.
SMALL_BYTES = 256 << 20
# YAML; the longest published configuration has 6 kB.
YAML_BYTES = 1 << 20
# Digits of a number; the longest that Python converts by default.
DIGITS = 4300


def check_size(path: str | os.PathLike[str], limit: int = ANNOTATION_BYTES) -> int:
    """The size in bytes of a regular file of at most ``limit`` bytes. It is not opened.

    Raises:
        UserError: when it is absent or larger, or no regular file: a pipe or a device may have no end.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"cannot read {path}: Is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"cannot read {path}: it is a pipe or a device; a file is expected, copy it into one")
    if status.st_size > limit:
        raise UserError(f"{path} has {status.st_size:,} bytes; at most {limit:,} are expected of such a file")
    return status.st_size


def read_bytes(path: str | os.PathLike[str], limit: int = ANNOTATION_BYTES) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; what is appended meanwhile is left.

    Raises:
        UserError: as :func:`check_size`, or when it cannot be read.
    """
    size = check_size(path, limit)
    try:
        with open(path, "rb") as stream:
            return stream.read(size)  # Python takes memory for as many bytes as are asked for
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_text(path: str | os.PathLike[str], limit: int = SMALL_BYTES) -> str:
    """UTF-8 text, without a byte order mark.

    Raises:
        UserError: as :func:`read_bytes`, or when it is not UTF-8.
    """
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
