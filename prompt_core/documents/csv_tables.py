"""CSV tables from outside: bounded in bytes, every row as long as the header."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from prompt_core.documents.bounds import TABLE_BYTES, check_size
from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible


class Table:
    """A UTF-8 table with a header line, read anew, row by row, each time that it is iterated.

    Attributes:
        path: of the file.
        columns: of its header.
    """

    def __init__(self, path: Path, limit: int = TABLE_BYTES) -> None:
        """
        Args:
            limit: bytes that such a file has at most.

        Raises:
            UserError: when it is absent or too large, or its header is no text.
        """
        check_size(path, limit)
        self.path = path
        self.columns = next(self._lines(), [])

    def __iter__(self) -> Iterator[dict[str, str]]:
        """The rows; a missing cell is an empty text.

        Raises:
            UserError: when it is no table or no text, or a row has more cells than the header.
        """
        lines, width = self._lines(), len(self.columns)
        next(lines, None)
        for number, cells in enumerate(lines, start=2):
            if any(cell.strip() for cell in cells[width:]):
                raise UserError(
                    f"{visible(str(self.path))}: row {number} has more cells than the {width} columns, from "
                    f"{shortened(cells[width])} on; quote texts with commas"
                )
            yield dict(zip(self.columns, cells + [""] * (width - len(cells)), strict=False))

    def _lines(self) -> Iterator[list[str]]:
        """The cells of each line that is not empty."""
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as stream:
                reader = csv.reader(stream)
                try:
                    yield from filter(None, reader)
                except csv.Error as error:  # an open quote, a cell of more than 131,072 characters
                    raise UserError(
                        f"cannot read {self.path} as a CSV table, near line {reader.line_num}: {error}"
                    ) from error
                except UnicodeDecodeError as error:
                    where = f"{error.reason}, below line {reader.line_num}"  # text is decoded in blocks of some lines
                    raise UserError(f"{self.path} is not UTF-8 text ({where}); save it as UTF-8") from error
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error


def listed(columns: Sequence[str], length: int = 200) -> str:
    """Names of columns for a message; a file that is no table may have its whole text there."""
    text = visible(", ".join(name[: length + 1] for name in columns[: length + 1]))
    return text if len(text) <= length else f"{text[: length - 1]}…"


def read_table(path: Path, limit: int = TABLE_BYTES) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a UTF-8 table with a header line, and its rows; a missing cell is an empty text.

    Args:
        limit: bytes that such a file has at most.

    Raises:
        UserError: as :class:`Table`.
    """
    table = Table(path, limit)
    return table.columns, list(table)
