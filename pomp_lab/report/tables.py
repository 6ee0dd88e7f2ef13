"""Tables: which columns stand side by side, over which rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pomp_lab.report.columns import FINE, LOWER_IS_BETTER, TASKS, Column
from pomp_lab.report.protocol import in_brief
from pomp_lab.report.rows import Cell, Row, cell

NARROW = 12


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers of one kind.

    Attributes:
        key: for links, unique in a report.
        rows: those with a number in it.
        cells: one for each row and column, None where there is none.
        main: whether it holds what is looked at first.
    """

    key: str
    title: str
    task: str
    columns: list[Column]
    rows: list[Row]
    cells: list[list[Cell | None]]
    main: bool

    @property
    def best(self) -> list[float | None]:
        """The best mean of each column; None where fewer than two rows can be compared."""
        found: list[float | None] = []
        for place, column in enumerate(self.columns):
            means = [row[place].mean for row in self.cells if (row[place] or Cell(math.nan, 0, 0, 0)).count]  # type: ignore[union-attr]
            better = min if column.metric in LOWER_IS_BETTER else max
            found.append(better(means) if len(means) > 1 and len(set(means)) > 1 else None)
        return found

    def is_best(self, place: int, found: Cell | None) -> bool:
        """Whether a cell of column ``place`` reads the same as the best mean there."""
        best, column = self.best[place], self.columns[place]
        if found is None or best is None or not found.count:
            return False
        return number_text(found.mean, column) == number_text(best, column)

    @property
    def headings(self) -> list[list[tuple[str, int]]]:
        """Lines of headings, each a text with the number of columns below it: data sets, protocols, metrics.

        A line that would say nothing is left out.
        """
        levels: list[list[object]] = [
            [(column.dataset,) for column in self.columns],
            [(column.dataset, column.key[2]) for column in self.columns],
            [(column.dataset, column.key[2], column.metric) for column in self.columns],
        ]
        texts = [[getattr(column, name) for column in self.columns] for name in ("dataset", "words", "label")]
        several = [len(set(text)) > 1 for text in texts]
        needed = [several[0], any(texts[1]), several[2] or not (several[0] or any(texts[1]))]
        return [_runs_of(keys, text) for keys, text, need in zip(levels, texts, needed, strict=True) if need]

    @property
    def common(self) -> str:
        """What the protocols of all columns share, in words."""
        return in_brief([column.protocol for column in self.columns], self.columns[0].dataset)


def build_tables(rows: Sequence[Row], columns: Sequence[Column]) -> list[Table]:
    """Tables by task, what is looked at first before other metrics."""
    found = []
    for task, arrange in (("classification", _by_metric), ("detection", _by_data_set), ("segmentation", _by_data_set)):
        found += arrange(rows, [column for column in columns if column.task == task])
    found.sort(key=lambda each: (TASKS.index(each[1][0].task), not _is_main(each[1][0])))
    return [_table(f"table-{number}", title, members, rows) for number, (title, members) in enumerate(found, 1)]


def _by_metric(rows: Sequence[Row], columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """One table for each metric and each set of rows that share data sets; columns with the most numbers first."""
    tables = []
    for part in _connected(rows, columns):
        for metric in dict.fromkeys(column.metric for column in part):
            members = [column for column in columns if column in part and column.metric == metric]
            members.sort(key=lambda column: -sum(cell(row, column) is not None for row in rows))
            names = list(dict.fromkeys(each.dataset for each in members if "mean_of" not in each.protocol))
            where = names[0] if len(names) == 1 else f"{len(names)} data sets"
            tables.append((f"{members[0].label}, {where}", members))
    return tables


def _by_data_set(rows: Sequence[Row], columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """One table for each data set, or one of boxes and one of masks where that would be wide; all metrics of one
    protocol before those of the next.
    """
    tables = []
    for dataset in dict.fromkeys(column.dataset for column in columns):
        own = [column for column in columns if column.dataset == dataset]
        kinds = {"boxes": "box_", "masks": "mask_"} if len(own) > NARROW else {"": ""}
        for kind, prefix in kinds.items():
            members = [column for column in own if column.metric.startswith(prefix)]
            protocols = list(dict.fromkeys(column.key[2] for column in members))
            members.sort(key=lambda column: protocols.index(column.key[2]))
            if members:
                tables.append((f"{dataset}, {kind}" if kind else dataset, members))
    return tables


def _is_main(column: Column) -> bool:
    return column.task != "classification" or column.metric in ("top1", "accuracy")


def number_text(value: float, column: Column, signed: bool = False) -> str:
    """One decimal for percent, three for others; a dash for what is not defined."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if signed else ''}.{3 if column.metric in FINE else 1}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def cell_text(found: Cell | None, column: Column, row: Row) -> str:
    """Mean, half the range, and the number of runs where it is not the row's number of seeds."""
    if found is None:
        return ""
    text = number_text(found.mean, column)
    if found.count > 1:
        text += f" ± {number_text(found.spread, column)}"
    if found.undefined and found.count:
        return f"{text} ({found.count} of {found.count + found.undefined} runs defined)"
    return f"{text} (n={found.count})" if found.count and found.count != row.seeds else text


def _runs_of(keys: Sequence[object], texts: Sequence[str]) -> list[tuple[str, int]]:
    """Neighbours of one key as one: the text and how many."""
    joined: list[tuple[object, str, int]] = []
    for key, text in zip(keys, texts, strict=True):
        if joined and joined[-1][0] == key:
            joined[-1] = (key, text, joined[-1][2] + 1)
        else:
            joined.append((key, text, 1))
    return [(text, count) for _, text, count in joined]


def _table(key: str, title: str, columns: list[Column], rows: Sequence[Row]) -> Table:
    found = [(row, [cell(row, column) for column in columns]) for row in rows]
    found = [(row, cells) for row, cells in found if any(each is not None for each in cells)]
    main = _is_main(columns[0])
    return Table(key, title, columns[0].task, columns, [row for row, _ in found], [cells for _, cells in found], main)


def _connected(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[Column]]:
    """Columns in groups, such that no row has numbers in two groups, nor two groups one data set."""
    groups: list[tuple[set[str], list[Column]]] = []
    for column in columns:
        names = {f"row {row.number}" for row in rows if cell(row, column) is not None} | {f"data {column.dataset}"}
        touching = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        merged = [each for group in touching for each in group[1]]
        groups.append((names.union(*(group[0] for group in touching)), [*merged, column]))
    return [group for _, group in groups]
