"""Variables of MATLAB files from outside: numbers, texts, cells and structures of the format of MATLAB 5.

The format is read here, since scipy's compiled reader ends the process on damaged files. A file is a header of 128
bytes and then elements: a tag of kind and bytes with its data, filled up to 8 bytes; small data stands in the tag
itself. An element of kind 15 is another one, compressed. (MathWorks, MAT-File Format, sections 1-5 to 1-20.)
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from prompt_core.documents.bounds import read_bytes
from prompt_core.errors import UserError

# The largest published list, of ImageNet's devkit, has 0.4 MB and unpacks to 3.
FILE_BYTES, UNPACKED_BYTES = 64 << 20, 256 << 20

_HEADER, _MATRIX, _COMPRESSED, _UTF8 = 128, 14, 15, 16
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {2: "latin-1", 4: "utf-16", _UTF8: "utf-8", 17: "utf-16"}
_CELL, _STRUCTURE, _CHARACTERS = 1, 2, 4
_ARRAYS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_DEPTH = 20


class _Damaged(Exception):
    """What is wrong with a file."""


def read_variable(path: Path, name: str) -> Any:
    """A variable of a file, as ``scipy.io.loadmat(squeeze_me=True)`` gives it: without axes of length 1.

    Numbers are arrays or scalars; rows of characters are ``str``; cells are arrays of objects; structures are arrays
    with a field of objects for each of theirs.

    Raises:
        UserError: when the file is absent, too large, damaged or of another format, or has no such variable.
    """
    content = read_bytes(path, FILE_BYTES)
    try:
        return _read_variable(memoryview(content), name)
    except KeyError:
        raise UserError(f"{path} has no variable {name!r}: expected the published file") from None
    except _Expanded:
        raise UserError(f"{path} unpacks to more than {UNPACKED_BYTES:,} bytes; download it again") from None
    except (_Damaged, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"cannot read {path} ({error}); download it again") from error


class _Expanded(Exception):
    """The compressed variables unpack to far more than any published list."""


def _read_variable(content: memoryview, name: str) -> Any:
    if len(content) < _HEADER:
        raise _Damaged("it has no header of MATLAB 5")
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:128]))
    if order is None:
        raise _Damaged("it is not in the format of MATLAB 5")
    left, elements = UNPACKED_BYTES, _Elements(content[_HEADER:], order)
    while elements.more():
        kind, data = elements.next()
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj()
            plain = unpacked.decompress(data, left + 1)
            left -= len(plain)
            if left < 0:
                raise _Expanded
            kind, data = _Elements(memoryview(plain), order).next()
        if kind == _MATRIX:
            found, value = _matrix(data, order, 0, name)
            if found == name:
                return value
    raise KeyError(name)


class _Elements:
    """The elements of a part of a file, in turn."""

    def __init__(self, content: memoryview, order: str) -> None:
        self._content, self._order, self._place = content, order, 0

    def more(self) -> bool:
        """Whether a tag fits into what is left."""
        return self._place + 8 <= len(self._content)

    def next(self) -> tuple[int, memoryview]:
        """Kind and data of the next element."""
        if not self.more():
            raise _Damaged("it ends within a variable")
        first, second = struct.unpack_from(f"{self._order}II", self._content, self._place)
        start, size = self._place + 8, second
        kind = first
        if first >> 16:  # a small element: the upper half is its size, its data is in the tag
            kind, start, size = first & 0xFFFF, self._place + 4, first >> 16
            if size > 4:
                raise _Damaged("a small element is too long")
        if start + size > len(self._content):
            raise _Damaged("it ends within a variable")
        filled = 8 if first >> 16 else 8 + (size if kind == _COMPRESSED else size + -size % 8)
        self._place += filled
        return kind, self._content[start : start + size]

    def numbers(self) -> np.ndarray:
        """The next element as numbers."""
        kind, data = self.next()
        if kind not in _NUMBERS:
            raise _Damaged(f"an element of kind {kind} stands in the place of numbers")
        return np.frombuffer(data, self._order + _NUMBERS[kind])

    def left(self) -> int:
        """How many elements there can be."""
        return (len(self._content) - self._place) // 8


def _matrix(data: memoryview, order: str, depth: int, wanted: str | None = None) -> tuple[str, Any]:
    """Name and value of an array; another than the wanted one has no value."""
    if depth > _DEPTH:
        raise _Damaged("it is nested too deeply")
    elements = _Elements(data, order)
    flags = elements.numbers()
    shape = tuple(int(length) for length in elements.numbers())
    kind_of_name, raw_name = elements.next()
    name = bytes(raw_name).decode("latin-1")
    if wanted is not None and name != wanted:
        return name, None
    if not flags.size or kind_of_name not in (1, 2, _UTF8) or len(shape) < 2 or min(shape) < 0:
        raise _Damaged("an array has no flags, name or shape")
    return name, _value(int(flags[0]), shape, elements, order, depth)


def _value(flags: int, shape: tuple[int, ...], elements: _Elements, order: str, depth: int) -> Any:
    kind, count = flags & 0xFF, math.prod(shape)
    if kind == _CELL:
        return _squeezed(_objects(elements, shape, count, order, depth))
    if kind == _STRUCTURE:
        return _structures(elements, shape, count, order, depth)
    if kind == _CHARACTERS:
        return _characters(elements, shape, count, order)
    if kind not in _ARRAYS:
        raise _Damaged(f"an array of kind {kind} is no list of numbers, texts, cells or structures")
    if flags & 0x800:
        raise _Damaged("complex numbers are not expected")
    numbers = elements.numbers()
    if numbers.size != count:
        raise _Damaged(f"an array has {numbers.size} numbers, {count} fit its shape")
    # MATLAB keeps numbers in a smaller type where they fit
    return _squeezed(numbers.astype(_ARRAYS[kind]).reshape(shape, order="F"))


def _objects(elements: _Elements, shape: tuple[int, ...], count: int, order: str, depth: int) -> np.ndarray:
    if count > elements.left():
        raise _Damaged("it ends within its cells")
    cells = np.empty(count, object)
    for place in range(count):
        cells[place] = _inner(elements, order, depth)
    return cells.reshape(shape, order="F")


def _structures(elements: _Elements, shape: tuple[int, ...], count: int, order: str, depth: int) -> np.ndarray:
    width = elements.numbers()
    raw = bytes(elements.next()[1])
    length = int(width[0]) if width.size else 0
    if length < 1 or len(raw) % length:
        raise _Damaged("the names of a structure's fields have no length")
    parts = [raw[start : start + length] for start in range(0, len(raw), length)]
    fields = [part.partition(b"\0")[0].decode("latin-1") for part in parts]
    if not fields or len(set(fields)) < len(fields) or "" in fields:
        raise _Damaged("the fields of a structure have no names of their own")
    if count * len(fields) > elements.left():
        raise _Damaged("it ends within its structures")
    records = np.empty(count, [(field, object) for field in fields])
    for place in range(count):
        for field in fields:
            records[field][place] = _inner(elements, order, depth)
    return np.squeeze(records.reshape(shape, order="F"))


def _inner(elements: _Elements, order: str, depth: int) -> Any:
    kind, data = elements.next()
    if kind != _MATRIX:
        raise _Damaged(f"an element of kind {kind} stands in the place of an array")
    return _matrix(data, order, depth + 1)[1] if len(data) else np.empty(0)


def _characters(elements: _Elements, shape: tuple[int, ...], count: int, order: str) -> Any:
    kind, data = elements.next()
    if kind not in _TEXTS:
        raise _Damaged(f"an element of kind {kind} stands in the place of a text")
    encoding = _TEXTS[kind]
    signs = bytes(data).decode(f"{encoding}-{'le' if order == '<' else 'be'}" if encoding == "utf-16" else encoding)
    if len(signs) != count or len(shape) != 2:
        raise _Damaged(f"a text has {len(signs)} characters, {count} fit its shape")
    rows = ["".join(signs[row :: shape[0]]) for row in range(shape[0])]
    return rows[0] if len(rows) == 1 else np.array(rows) if rows else ""


def _squeezed(array: np.ndarray) -> Any:
    array = np.squeeze(array) if array.size else np.empty(0, array.dtype)
    return array[()] if array.shape == () else array
