"""Tables in the documentation say what the result files say."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "tables"
PAGE = (ROOT / "docs" / "classification.md").read_text(encoding="utf-8")


def rows_below(text: str, start: str) -> list[list[str]]:
    """Cells of the first table behind ``start``, headings first."""
    lines = text[text.index(start) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [row for number, row in enumerate(rows) if number != 1]


def written(table: str) -> dict[str, list[str]]:
    """Cells of a written table by row, without the number of runs."""
    rows = rows_below((RESULTS / f"{table}_laptop.md").read_text(encoding="utf-8"), "| row")
    return {row[0]: row[2:] for row in rows[1:]}


def documents() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RESULTS / "results").glob("*.json"))]


@pytest.mark.parametrize(
    "table", ["imagenet21k", "cross_dataset", "cross_domain", "ablation_k", "ablation_margin", "align_uniform"]
)
def test_tables_of_the_page_are_those_that_were_written(table: str) -> None:
    known = written(table)
    shown = rows_below(PAGE, f"<!-- measured: {table} -->")[1:]
    assert len(shown) >= 5
    for name, *cells in shown:
        assert cells == known[name], name


def test_written_tables_are_means_of_the_result_files() -> None:
    values: dict[tuple[str, str], dict[Any, float]] = defaultdict(dict)
    for document in documents():
        for key, value in document.items():
            if key.endswith("/top1"):
                values[document["row"], key.removesuffix("/top1")][document["seed"]] = value
    checked = 0
    for table in ("imagenet21k", "cross_dataset", "cross_domain"):
        headings, *rows = rows_below((RESULTS / f"{table}_laptop.md").read_text(encoding="utf-8"), "| row")
        for name, _, *cells in rows:
            for heading, cell in zip(headings[2:], cells, strict=True):
                found = list(values[name, heading.split(":")[0]].values())
                if found and cell:
                    mean = re.match(r"-?[\d.]+", cell)
                    assert mean is not None
                    assert mean[0] == f"{sum(found) / len(found):.1f}", (table, name, heading)
                    checked += 1
    assert checked > 50
