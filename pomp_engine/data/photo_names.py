"""Photos found by name, however much of their path each side gives."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath
from typing import Generic, TypeVar

from prompt_core.data.photo_files import is_photo_name
from prompt_core.errors import UserError
from prompt_core.visible import visible

T = TypeVar("T")


class PhotoNames(Generic[T]):
    """Values by the names of photos.

    Two names are of one photo when one path is the end of the other, whatever the ending of the file: ``a/1.jpg``,
    ``photos/a/1.png`` and ``1``. Of names that differ in nothing else, that with the photo's ending is meant.

    Args:
        source: where the names come from, for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._by_stem: dict[str, list[tuple[tuple[str, ...], str, T]]] = {}

    def add(self, name: str, value: T) -> None:
        """Add a photo; names that could be another's are refused when that one is looked for."""
        parts, ending = _parts(name)
        self._by_stem.setdefault(parts[-1], []).append((parts, ending, value))

    def find(self, name: str) -> T | None:
        """The value of the photo that agrees with ``name`` in most of its path; None for none.

        Raises:
            UserError: when several do.
        """
        wanted, ending = _parts(name)
        fitting = [
            ((min(len(parts), len(wanted)), of_entry == ending), value)
            for parts, of_entry, value in self._by_stem.get(wanted[-1], ())
            if _one_ends_the_other(parts, wanted)
        ]
        if not fitting:
            return None
        best = max(agreement for agreement, _ in fitting)
        values = [value for agreement, value in fitting if agreement == best]
        if len(values) > 1:
            raise UserError(
                f"{self._source} has {len(values)} entries that can be of photo {visible(name)}; give more of their "
                "paths"
            )
        return values[0]

    def __len__(self) -> int:
        return sum(map(len, self._by_stem.values()))


def _parts(name: str) -> tuple[tuple[str, ...], str]:
    """The parts of a path, and the ending of a photo that was taken off the last."""
    path = PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/"))  # macOS takes letters apart
    if path.suffix.lower() == ".json":
        path = path.with_suffix("")
    ending = ""
    if is_photo_name(path.name):
        path, ending = path.with_suffix(""), path.suffix.lower()
    return tuple(part for part in path.parts if part not in ("/", ".", "..")) or (name,), ending


def _one_ends_the_other(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    length = min(len(first), len(second))
    return first[-length:] == second[-length:]
