"""CSV: a photo and its words in each row, the best first; no word for none of these."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pomp.formats.checked import Collected, checked_word
from pomp.formats.labelled import NONE_OF_THESE, Corrections, LabelledPhoto, Photos
from prompt_core.documents.bounds import TABLE_BYTES, read_text
from prompt_core.errors import UserError
from prompt_core.files import atomic_path
from prompt_core.visible import visible_path

KIND = "csv"
TABLE = "words.csv"
HEADER = ["file", "word"]
_FILE_COLUMNS = ("file", "file_name", "filename", "photo", "image", "path")
_WORD_COLUMNS = ("word", "words", "label", "class", "category")


class WordTable:
    """A table that is written as photos come, made with the first that has words of the whole photo."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.TextIOBase | None = None

    def __enter__(self) -> WordTable:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, photo: LabelledPhoto) -> None:
        """Add the row of a photo; nothing where nobody said what it shows."""
        if photo.words is None:
            return
        if self._file is None:
            self._file = open(self._path, "w", encoding="utf-8", newline="")  # noqa: SIM115 - closed by __exit__
            csv.writer(self._file).writerow(HEADER)
        csv.writer(self._file).writerow([photo.name, *(photo.words or ("",))])


def write(photos: Photos, words: Sequence[str], folder: Path) -> None:
    """Write ``words.csv``."""
    with atomic_path(folder / TABLE) as temporary, WordTable(temporary) as table:
        for photo in photos():
            table.add(photo)


def read(path: Path) -> Corrections:
    """Read a table: with a header, whose first column is the photo, or without one.

    Raises:
        UserError: when it is no table, or names a photo twice.
    """
    collected = Collected(KIND)
    for name, words in words_of_photos(path).items():
        collected.add(LabelledPhoto(name, 0, 0, (), words))
    return collected.corrections()


def words_of_photos(path: Path) -> dict[str, tuple[str, ...]]:
    """The words of each photo of a table.

    Raises:
        UserError: as :func:`read`.
    """
    where = visible_path(path)
    try:
        rows = list(csv.reader(io.StringIO(read_text(path, TABLE_BYTES), newline="")))
    except csv.Error as error:
        raise UserError(f"cannot read {where} as a CSV table: {error}") from error
    found: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows, start=1):
        if not any(cell.strip() for cell in row) or (number == 1 and _is_header(row)):
            continue
        name, *cells = row
        if not name.strip():
            raise UserError(f"{where}: row {number} names no photo")
        if name in found:
            raise UserError(f"{where}: row {number} names {visible_path(name)} again")
        words = tuple(checked_word(cell, f"{where}: row {number}") for cell in cells if cell.strip())
        found[name] = () if words == (NONE_OF_THESE,) else words
    return found


def _is_header(row: list[str]) -> bool:
    names = [cell.strip().lower() for cell in row]
    return names[0] in _FILE_COLUMNS and (len(names) == 1 or names[1] in _WORD_COLUMNS)
