"""CSV tables from outside: bounded in bytes, every row as long as the header."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from prompt_core.documents.bounds import TABLE_BYTES, read_text
from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible


def read_table(path: Path, limit: int = TABLE_BYTES) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a UTF-8 table with a header line, and its rows; a missing cell is an empty text.

    Args:
        limit: bytes that such a file has at most.

    Raises:
        UserError: when it is absent, too large or no table, or a row has more cells than the header.
    """
    text = read_text(path, limit)
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        columns, rows = list(reader.fieldnames or ()), list(reader)
    except csv.Error as error:  # an open quote, a cell of more than 131,072 characters
        raise UserError(f"cannot read {path} as a CSV table, near line {reader.line_num}: {error}") from error
    for number, row in enumerate(rows, start=2):
        more = row.pop(None, [])
        if any(cell.strip() for cell in more):
            raise UserError(
                f"{visible(str(path))}: row {number} has more cells than the {len(columns)} columns, from "
                f"{shortened(more[0])} on; quote texts with commas"
            )
    return columns, rows
