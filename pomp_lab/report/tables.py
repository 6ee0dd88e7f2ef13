"""Tables: which columns and rows belong together, and the published numbers below them where they are comparable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pomp_lab.report.comparable import why_not
from pomp_lab.report.protocol_text import shared_phrases
from pomp_lab.report.published import PublishedColumn, PublishedTable, load_published
from pomp_lab.report.rows import LOWER_IS_BETTER, Cell, Column, Row, cell, number_text, with_differences

# A data set with more columns has a table of boxes and one of masks.
NARROW = 12


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers of one kind.

    Attributes:
        rows: those with at least one number.
        cells: one for each row and column, None where there is none.
    """

    title: str
    columns: list[Column]
    rows: list[Row]
    cells: list[list[Cell | None]]

    @property
    def task(self) -> str:
        """The task of its columns."""
        return self.columns[0].task

    @property
    def main(self) -> bool:
        """Whether it holds the main metrics of its task."""
        return self.task != "classification" or self.columns[0].metric in ("top1", "accuracy")

    @property
    def common_protocol(self) -> str:
        """What the protocols of all columns share, as text."""
        return shared_phrases([column.protocol for column in self.columns], self.columns[0].dataset)

    @property
    def headings(self) -> list[str]:
        """Data set, metric and what distinguishes the protocol, as far as the title does not say it."""
        several = len({column.dataset for column in self.columns}) > 1
        metrics = len({column.metric for column in self.columns}) > 1 or not several
        texts = []
        for column in self.columns:
            names = [column.dataset] * several + [column.label] * metrics
            texts.append(": ".join([", ".join(names), *([column.difference] if column.difference else [])]))
        return texts

    def best(self, place: int) -> str | None:
        """The best mean of a column as text; None where fewer than two different means can be compared."""
        metric = self.columns[place].metric
        means = {row[place].mean for row in self.cells if (row[place] or NO_NUMBER).count}  # type: ignore[union-attr]
        best = min if metric in LOWER_IS_BETTER else max
        return number_text(best(means), metric) if len(means) > 1 else None


NO_NUMBER = Cell(math.nan, 0.0, 0, 0)


@dataclass(frozen=True)
class Comparison:
    """A published table compared with one of ours.

    Attributes:
        rows: label and one number for each column of our table, NaN where none is comparable; empty where none of our
            numbers can be compared.
        gaps: row of ours, label of the published row, and mean minus published number for each column.
        refused: which of our numbers are not compared, and why.
    """

    published: PublishedTable
    rows: list[tuple[str, list[float]]]
    gaps: list[tuple[Row, str, list[float]]]
    refused: list[str]


def build_tables(rows: Sequence[Row], columns: Sequence[Column]) -> list[Table]:
    """Tables by task, main metrics before others."""
    tables = []
    for task in ("classification", "detection", "segmentation"):
        members = [column for column in columns if column.task == task]
        arranged = _by_metric(rows, members) if task == "classification" else _by_data_set(members)
        drafts = [_table(title, group, rows) for title, group in arranged]
        tables += sorted(drafts, key=lambda table: not table.main)
    return tables


def compare(table: Table) -> list[Comparison]:
    """Published tables with numbers of the table's data sets and metrics.

    A published number appears in a column when at least one row of ours can be compared with it there.
    """
    comparisons = []
    for published in load_published():
        refusals: list[tuple[str, str, str]] = []
        # backbone → our column → index of the published column, and our rows that are compared there
        allowed: dict[str, dict[int, tuple[int, list[Row]]]] = {}
        for number, column in enumerate(table.columns):
            places = [place for place, other in enumerate(published.columns) if same_numbers(other, column)]
            for row, cells in zip(table.rows, table.cells, strict=True):
                if cells[number] is None or not places:
                    continue
                fitting = [p for p in places if not why_not(published, [published.columns[p]], column, row.runs)]
                for place in fitting:
                    by_column = allowed.setdefault(published.columns[place].model, {})
                    by_column.setdefault(number, (place, []))[1].append(row)
                if not fitting:
                    reason = why_not(published, [published.columns[place] for place in places], column, row.runs)
                    refusals.append((reason or "", column.dataset, f"row {row.number}"))
        rows: list[tuple[str, list[float]]] = []
        gaps: list[tuple[Row, str, list[float]]] = []
        for model in dict.fromkeys(column.model for column in published.columns if column.model in allowed):
            new_rows, new_gaps = _one_backbone(table, published, model, allowed[model])
            rows += new_rows
            gaps += new_gaps
        if rows or refusals:
            gaps.sort(key=lambda gap: gap[0].number)
            comparisons.append(Comparison(published, rows, gaps, refusal_texts(refusals)))
    return comparisons


def refusal_texts(refusals: Sequence[tuple[str, str, str]]) -> list[str]:
    """One text for each reason and group of data sets, with the rows.

    Args:
        refusals: (reason, data set, row) of each number that is not compared.
    """
    datasets: dict[tuple[str, str], dict[str, None]] = {}
    for reason, dataset, row in refusals:
        datasets.setdefault((reason, row), {})[dataset] = None
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (reason, row), names in datasets.items():
        rows.setdefault((reason, tuple(names)), []).append(row)
    return [f"{few(names)} ({few(members)}): {reason}" for (reason, names), members in rows.items()]


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def same_numbers(published: PublishedColumn, column: Column) -> bool:
    """Whether the data set's name and the metric are the same."""
    return published.metric == column.metric and published.is_of(column.dataset)


def _one_backbone(
    table: Table, published: PublishedTable, model: str, allowed: dict[int, tuple[int, list[Row]]]
) -> tuple[list[tuple[str, list[float]]], list[tuple[Row, str, list[float]]]]:
    """Published rows, and gaps to the reference row; to the last one where that has no number here."""
    width = range(len(table.columns))
    rows = []
    for name, values in published.rows:
        numbers = [values[allowed[number][0]] if number in allowed else math.nan for number in width]
        if any(map(math.isfinite, numbers)):
            rows.append((f"{name}, {model}" if model else name, numbers))
    wanted = f"{published.reference}, {model}" if model else published.reference
    reference, known = next((row for row in rows if row[0] == wanted), rows[-1] if rows else ("", []))
    gaps = []
    for row, cells in zip(table.rows, table.cells, strict=True) if rows else ():
        numbers = [
            (cells[number] or NO_NUMBER).mean - known[number] if row in allowed.get(number, (0, []))[1] else math.nan
            for number in width
        ]
        if any(map(math.isfinite, numbers)):
            gaps.append((row, reference, numbers))
    return rows, gaps


def _by_metric(rows: Sequence[Row], columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """One table for each metric and each set of rows that share data sets; columns with the most numbers first."""
    tables = []
    for metric in dict.fromkeys(column.metric for column in columns):
        for group in _connected(rows, [column for column in columns if column.metric == metric]):
            group.sort(key=lambda column: -sum(cell(row, column) is not None for row in rows))
            names = list(dict.fromkeys(column.dataset for column in group if "mean_of" not in column.protocol))
            tables.append((f"{group[0].label}, {names[0] if len(names) == 1 else f'{len(names)} data sets'}", group))
    return tables


def _by_data_set(columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """One table for each data set, split into boxes and masks where it would be wide; columns ordered by protocol."""
    tables = []
    for dataset in dict.fromkeys(column.dataset for column in columns):
        members = [column for column in columns if column.dataset == dataset]
        protocols = list(dict.fromkeys(column.protocol_key for column in members))
        members.sort(key=lambda column: protocols.index(column.protocol_key))
        kinds = {", boxes": "box_", ", masks": "mask_"} if len(members) > NARROW else {"": ""}
        for kind, prefix in kinds.items():
            if group := [column for column in members if column.metric.startswith(prefix)]:
                tables.append((dataset + kind, group))
    return tables


def _connected(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[Column]]:
    """Columns in groups: no row has numbers in two groups; with few columns no data set is in two either."""
    groups: list[tuple[set[object], list[Column]]] = []
    for column in columns:
        names: set[object] = {row.number for row in rows if cell(row, column) is not None}
        names |= {column.dataset} if len(columns) <= NARROW else set()
        touching = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        merged = [member for group in touching for member in group[1]]
        groups.append((names.union(*(group[0] for group in touching)), [*merged, column]))
    return [group for _, group in groups]


def _table(title: str, columns: list[Column], rows: Sequence[Row]) -> Table:
    cells = {row: [cell(row, column) for column in columns] for row in rows}
    filled = [row for row in rows if any(numbers is not None for numbers in cells[row])]
    return Table(title, with_differences(columns), filled, [cells[row] for row in filled])
