"""CSV tables: read row by row, as often as wanted, and refused with one line where they are none."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core.documents.csv_tables import Table, read_table
from prompt_core.errors import UserError

CELLS = st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=5), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(header=CELLS, rows=st.lists(CELLS, max_size=5))
def test_rows_are_those_of_the_csv_module(
    tmp_path_factory: pytest.TempPathFactory, header: list[str], rows: list[list[str]]
) -> None:
    rows = [row[: len(header)] for row in rows]
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    path = tmp_path_factory.mktemp("table") / "a.csv"
    path.write_text(text.getvalue(), encoding="utf-8-sig", newline="")
    table = Table(path)
    expected = list(csv.DictReader(io.StringIO(text.getvalue(), newline=""), restval=""))
    assert list(table) == expected == list(table)  # it can be read again
    assert read_table(path) == (table.columns, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2,3\n", r"row 2 has more cells than the 2 columns, from '?3'? on"),
        (b"a,b\n1,2\n\xff,3\n", r"t\.csv is not UTF-8 text"),
        (b"a,b\n1," + b"x" * 140_000, r"cannot read .*t\.csv as a CSV table, near line 2"),
    ],
)
def test_what_is_no_table_gets_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(path)


def test_bounds_and_absence(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"")
    assert read_table(path) == ([], [])
    path.write_text("a\n" * 100)
    with pytest.raises(UserError, match="at most 20 are expected"):
        Table(path, 20)
    with pytest.raises(UserError, match="cannot read"):
        Table(tmp_path / "none.csv")
