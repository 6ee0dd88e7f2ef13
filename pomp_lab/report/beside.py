"""Published numbers beside a table of ours: only where both can be compared; elsewhere it is said why not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pomp_lab.report.comparable import why_not
from pomp_lab.report.published import PublishedTable, load_published
from pomp_lab.report.tables import Table


@dataclass(frozen=True)
class Gap:
    """A row of the table against a published row of the same backbone.

    Attributes:
        place: of the row in the table.
        reference: label of the published row.
        numbers: mean minus published number, one for each column of the table; NaN where they are not compared.
    """

    place: int
    reference: str
    numbers: list[float]


@dataclass(frozen=True)
class Beside:
    """Published numbers beside a table.

    Attributes:
        rows: label and one number for each column of the table, NaN where none may stand there; empty where none of the
            table's numbers can be compared.
        refused: which of our numbers are not compared, and why.
    """

    published: PublishedTable
    rows: list[tuple[str, list[float]]]
    gaps: list[Gap]
    refused: list[str]


class Refusals:
    """Which numbers of ours are not compared, gathered by reason."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, None]] = {}

    def add(self, reason: str, dataset: str, row: str) -> None:
        """A data set of a row; an empty row stands for all."""
        self._found.setdefault((reason, row), {})[dataset] = None

    def words(self) -> list[str]:
        """One text for each reason and group of data sets, with the rows."""
        joined: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for (reason, row), datasets in self._found.items():
            joined.setdefault((reason, tuple(datasets)), []).append(row)
        return [
            f"{_few(datasets)}{f' ({_few(rows)})' if all(rows) else ''}: {reason}"
            for (reason, datasets), rows in joined.items()
        ]


def published_beside(table: Table, tables: Sequence[PublishedTable] | None = None) -> list[Beside]:
    """Blocks of the published tables that have numbers of the table's data sets and metrics, one for each of them.

    A published number stands in a column when at least one row of ours can be compared with it there.
    """
    blocks = []
    for published in load_published() if tables is None else tables:
        refusals = Refusals()
        # model → column of ours → place of the published column, and the rows of ours that are compared there
        allowed: dict[str, dict[int, tuple[int, set[int]]]] = {}
        for number, column in enumerate(table.columns):
            places = [place for place, each in enumerate(published.columns) if each.matches(column)]
            for row in [row for row, cells in enumerate(table.cells) if cells[number] is not None and places]:
                runs = table.rows[row].runs
                fitting = [p for p in places if why_not(published, [published.columns[p]], column, runs) is None]
                for place in fitting:
                    found = allowed.setdefault(published.columns[place].model, {})
                    found.setdefault(number, (place, set()))[1].add(row)
                if places and not fitting:
                    reason = why_not(published, [published.columns[place] for place in places], column, runs)
                    refusals.add(reason or "no published number", column.dataset, f"row {table.rows[row].number}")
        refused = refusals.words()
        rows: list[tuple[str, list[float]]] = []
        gaps: list[Gap] = []
        for model in dict.fromkeys(column.model for column in published.columns if column.model in allowed):
            own = _rows_of(published, model, allowed[model], len(table.columns))
            rows += own
            if own:
                gaps += _gaps(table, _reference(published, model, own), allowed[model])
        if rows or refused:
            blocks.append(Beside(published, rows, sorted(gaps, key=lambda gap: gap.place), refused))
    return blocks


def _rows_of(
    published: PublishedTable, model: str, allowed: dict[int, tuple[int, set[int]]], width: int
) -> list[tuple[str, list[float]]]:
    rows = []
    for name, values in published.rows:
        cells = [values[allowed[number][0]] if number in allowed else math.nan for number in range(width)]
        if any(map(math.isfinite, cells)):
            rows.append((_label(name, model), cells))
    return rows


def _label(name: str, model: str) -> str:
    return f"{name}, {model}" if model else name


def _reference(
    published: PublishedTable, model: str, rows: Sequence[tuple[str, list[float]]]
) -> tuple[str, list[float]]:
    """The row that differences are taken to; the last where that one has no number here."""
    wanted = _label(published.reference, model)
    return next((row for row in rows if row[0] == wanted), rows[-1])


def _gaps(table: Table, reference: tuple[str, list[float]], allowed: dict[int, tuple[int, set[int]]]) -> list[Gap]:
    gaps = []
    for place, cells in enumerate(table.cells):
        numbers = [
            found.mean - value if found is not None and place in allowed.get(number, (0, set()))[1] else math.nan
            for number, (found, value) in enumerate(zip(cells, reference[1], strict=True))
        ]
        if any(map(math.isfinite, numbers)):
            gaps.append(Gap(place, reference[0], numbers))
    return gaps


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
