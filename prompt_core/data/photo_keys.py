"""Keys of many photos in arrays: about 30 bytes each, where a list of texts takes 110.

ImageNet-21K has 13 million photos. A key is the folder of a class and a name in it; folders are stored once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

_AT_ONCE = 4096  # keys whose places are looked up together


class PhotoKeys(Sequence[str]):
    """``FOLDER/NAME`` of each photo, made into a text when it is asked for. Immutable; equal to a list of its texts.

    Args:
        text: (bytes,) uint8, the names one behind the other in UTF-8.
        ends: (names,) int64, where each name ends in ``text``.
        folders: each folder once; an empty one adds nothing to a name.
        folder_of: (names,) the folder of each name.
        rows: (n,) the names that are keys here, in their order; None for all.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        text: np.ndarray,
        ends: np.ndarray,
        folders: Sequence[str],
        folder_of: np.ndarray,
        rows: np.ndarray | None = None,
    ) -> None:
        self._text, self._ends, self._folder_of, self._rows = text, ends, folder_of, rows
        self._folders = [f"{folder}/" if folder else "" for folder in folders]

    def __len__(self) -> int:
        return len(self._ends if self._rows is None else self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        if self._rows is not None:
            index = int(self._rows[index])
        elif index < 0:
            index += len(self._ends)
        if index < 0:
            raise IndexError(index)
        start = int(self._ends[index - 1]) if index else 0
        name = self._text[start : int(self._ends[index])].tobytes().decode("utf-8", "surrogateescape")
        return self._folders[int(self._folder_of[index])] + name

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _AT_ONCE):
            places = np.arange(first, min(first + _AT_ONCE, len(self)))
            rows = places if self._rows is None else self._rows[places]
            starts = np.where(rows > 0, self._ends[rows - 1], 0).tolist()
            for start, end, folder in zip(
                starts, self._ends[rows].tolist(), self._folder_of[rows].tolist(), strict=True
            ):
                yield self._folders[folder] + self._text[start:end].tobytes().decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (PhotoKeys, list)):
            return NotImplemented
        return len(self) == len(other) and all(mine == given for mine, given in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"{self[:8]!r}" if len(self) <= 8 else f"<{len(self):,} keys, the first is {self[0]!r}>"

    def take(self, indices: np.ndarray) -> PhotoKeys:
        """The keys at ``indices`` (n,), over the same arrays."""
        rows = indices if self._rows is None else self._rows[indices]
        kept = PhotoKeys(self._text, self._ends, (), self._folder_of, rows)
        kept._folders = self._folders
        return kept


class KeyPacker:
    """Collects keys, a folder at a time."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._lengths: list[np.ndarray] = []
        self._folders: list[str] = []
        self._counts: list[int] = []

    def add(self, folder: str, names: Iterable[str]) -> int:
        """The keys of ``names`` in ``folder``; returns how many these are."""
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._text += b"".join(encoded)
        self._lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        self._folders.append(folder)
        self._counts.append(len(encoded))
        return len(encoded)

    def names(self) -> tuple[np.ndarray, np.ndarray]:
        """``text`` and ``ends`` of :class:`PhotoKeys`."""
        lengths = np.concatenate([*self._lengths, np.zeros(0, np.int64)])
        return np.frombuffer(bytes(self._text), np.uint8), np.cumsum(lengths)

    def keys(self) -> PhotoKeys:
        """All of them, in the order in which they were added."""
        folder_of = np.repeat(np.arange(len(self._counts), dtype=np.int32), self._counts)
        return PhotoKeys(*self.names(), self._folders, folder_of)
