"""A ``features.npy`` that grows block by block, and a journal that tells the next run which blocks it may keep.

::

    entry/features.npy  NumPy's header, then the rows of the blocks in their order
    blocks.jsonl        [number, first row, positions that could not be read, sha256 of these and of the rows]

A block is a fixed range of positions in the image set. Nothing is waited for until the end: what a kill or a power
failure leaves incomplete does not fit its hash and is encoded anew, by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

FEATURES, JOURNAL = "features.npy", "blocks.jsonl"
LINE_BYTES = 1 << 20  # of the journal; a block has at most a few thousand positions


@dataclass(frozen=True)
class Block:
    """Positions ``start`` to ``stop``; rows from ``first_row`` on, one for each position that could be read."""

    start: int
    stop: int
    first_row: int
    unreadable: tuple[int, ...]

    @property
    def end_row(self) -> int:
        """The row behind the last one."""
        return self.first_row + self.stop - self.start - len(self.unreadable)


class FeatureBlocks:
    """The blocks of ``total`` photos, (views, embedding) float16 each.

    Args:
        folder: with the journal; ``folder/entry`` is what will be published. Both are made.
        size: photos of a block.

    Attributes:
        shape: (views, embedding).

    Raises:
        OSError: when they cannot be written.
    """

    def __init__(self, folder: Path, total: int, size: int, views: int, embedding: int) -> None:
        self.path = folder / "entry" / FEATURES
        self._journal_path = folder / JOURNAL
        self.shape, self._total, self._size = (views, embedding), total, size
        self._blocks: dict[int, Block] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as streams:
            self._stream: IO[bytes] = streams.enter_context(
                open(self.path, "r+b" if self.path.exists() else "w+b", buffering=0)
            )
            self._journal: IO[bytes] = streams.enter_context(open(self._journal_path, "a+b", buffering=0))
            self._offset = self._write_header(0)
            self._read_back()
            self._streams = streams.pop_all()

    def __enter__(self) -> FeatureBlocks:
        return self

    def __exit__(self, *error: object) -> None:
        self._streams.close()

    @property
    def unreadable(self) -> list[int]:
        """Positions in the finished blocks that could not be read."""
        return [position for number in sorted(self._blocks) for position in self._blocks[number].unreadable]

    @property
    def photos_done(self) -> int:
        """Positions in the finished blocks."""
        return sum(block.stop - block.start for block in self._blocks.values())

    @property
    def bytes_missing(self) -> int:
        """Space that the missing blocks need at most."""
        return (self._total - self.photos_done) * self._row_bytes

    def missing(self) -> list[int]:
        """Numbers of the blocks that are to be encoded, in their order."""
        return [number for number in range(-(-self._total // self._size)) if number not in self._blocks]

    def positions(self, number: int) -> range:
        """Positions of a block in the image set."""
        return block_positions(number, self._size, self._total)

    def put(self, number: int, features: np.ndarray, unreadable: list[int]) -> bool:
        """Write a block, all of whose predecessors are there.

        Args:
            features: (n, views, embedding), rows of the photos of the block that could be read.

        Returns:
            whether all later blocks stand; where this one has another number of rows than before, they do not.

        Raises:
            OSError: when the disk is full.
        """
        positions = self.positions(number)
        first_row = self._blocks[number - 1].end_row if number else 0
        block = Block(positions.start, positions.stop, first_row, tuple(unreadable))
        later = self._blocks.get(number + 1)
        stands = later is None or later.first_row == block.end_row
        if not stands:
            self._blocks = {kept: value for kept, value in self._blocks.items() if kept < number}
        content = np.ascontiguousarray(features, dtype="<f2").tobytes()
        line = [number, first_row, list(unreadable), _digest(number, first_row, unreadable, content)]
        self._stream.seek(self._offset + first_row * self._row_bytes)
        _write_all(self._stream, content)
        # The line begins with its own end of line: the one before may be incomplete.
        _write_all(self._journal, f"\n{json.dumps(line)}\n".encode())
        self._blocks[number] = block
        return stands

    def finish(self) -> None:
        """Give the file its length and its header; its bytes are on the disk after that."""
        rows = self._blocks[max(self._blocks)].end_row
        self._write_header(rows)
        self._stream.truncate(self._offset + rows * self._row_bytes)
        os.fsync(self._stream.fileno())

    @property
    def _row_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * 2

    def _write_header(self, rows: int) -> int:
        """NumPy's header, which has room for a growing first axis; returns its length."""
        self._stream.seek(0)
        described: Any = {"descr": "<f2", "fortran_order": False, "shape": (rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self._stream, described)
        return self._stream.tell()

    def _read_back(self) -> None:
        """Find the blocks of an earlier run that are what it wrote."""
        lines = dict(self._lines())
        for number in sorted(lines):
            first_row, unreadable, digest = lines[number]
            positions = self.positions(number)
            block = Block(positions.start, positions.stop, first_row, tuple(unreadable))
            before = self._blocks.get(number - 1)
            if (before is not None and before.end_row != first_row) or (number == 0 and first_row != 0):
                continue
            self._stream.seek(self._offset + first_row * self._row_bytes)
            content = self._stream.read((block.end_row - first_row) * self._row_bytes)
            if digest == _digest(number, first_row, unreadable, content):
                self._blocks[number] = block

    def _lines(self) -> Iterator[tuple[int, tuple[int, list[int], str]]]:
        """Whole lines of the journal; those that make no sense are left out."""
        self._journal.seek(0)
        with open(self._journal.fileno(), "rb", closefd=False) as stream:
            while text := stream.readline(LINE_BYTES):
                with contextlib.suppress(ValueError, TypeError):
                    number, first_row, unreadable, digest = json.loads(text)
                    if type(number) is not int or type(first_row) is not int or not self.positions(number):
                        continue
                    inside = self.positions(number)
                    if 0 <= first_row <= inside.start and all(position in inside for position in unreadable):
                        yield number, (first_row, unreadable, digest)


def block_positions(number: int, size: int, total: int) -> range:
    """Positions in an image set of ``total`` photos of a block of ``size``."""
    return range(number * size, min((number + 1) * size, total))


def _digest(number: int, first_row: int, unreadable: list[int], content: bytes) -> str:
    digest = hashlib.sha256(json.dumps([number, first_row, list(unreadable)]).encode())
    digest.update(content)
    return digest.hexdigest()


def _write_all(stream: IO[bytes], content: bytes) -> None:
    """Write to an unbuffered file, which may take a part at a time."""
    left = memoryview(content)
    while left:
        left = left[stream.write(left) :]
