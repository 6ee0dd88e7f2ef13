"""Tables: which columns and rows belong together, and the published numbers below them where they are comparable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pomp_lab.report.columns import LOWER_IS_BETTER, Column, with_differences
from pomp_lab.report.comparable import why_not
from pomp_lab.report.protocol_text import shared_phrases
from pomp_lab.report.published import PublishedTable, load_published
from pomp_lab.report.rows import Row, number_text

# A data set with more columns has a table of boxes and one of masks.
NARROW = 12


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers of one kind: the means of rows in columns.

    Attributes:
        rows: those with at least one number.
    """

    title: str
    columns: list[Column]
    rows: list[Row]

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

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Published tables with numbers of these data sets and metrics.

        A published number appears in a column when at least one row of ours can be compared with it there.
        """
        comparisons = [_compare(self, published) for published in load_published()]
        return [comparison for comparison in comparisons if comparison.rows or comparison.refused]

    def best(self, column: Column) -> str | None:
        """The best mean of a column as text; None where fewer than two different means can be compared."""
        means = {mean.value for row in self.rows if (mean := row.defined(column))}
        best = min if column.metric in LOWER_IS_BETTER else max
        return number_text(best(means), column.metric) if len(means) > 1 else None


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
    holders: dict[Column, list[Row]] = {column: [] for column in columns}
    for row in rows:
        for column in row.means:
            holders[column].append(row)
    tables = []
    for task in ("classification", "detection", "segmentation"):
        members = [column for column in columns if column.task == task]
        drafts = []
        for title, group in _by_metric(members, holders) if task == "classification" else _by_data_set(members):
            filled = {row for column in group for row in holders[column]}
            drafts.append(Table(title, with_differences(group), sorted(filled, key=lambda row: row.number)))
        tables += sorted(drafts, key=lambda table: not table.main)
    return tables


def _by_metric(columns: Sequence[Column], holders: Mapping[Column, list[Row]]) -> list[tuple[str, list[Column]]]:
    """One table for each metric and each set of rows that share data sets; columns with the most numbers first."""
    by_metric: dict[str, list[Column]] = {}
    for column in columns:
        by_metric.setdefault(column.metric, []).append(column)
    tables = []
    for members in by_metric.values():
        for group in _connected(members, holders):
            group.sort(key=lambda column: -len(holders[column]))
            names = list(dict.fromkeys(column.dataset for column in group if "mean_of" not in column.protocol))
            tables.append((f"{group[0].label}, {names[0] if len(names) == 1 else f'{len(names)} data sets'}", group))
    return tables


def _connected(columns: Sequence[Column], holders: Mapping[Column, list[Row]]) -> list[list[Column]]:
    """Columns in groups: no row has numbers in two groups; with few columns no data set is in two either."""
    leaders: dict[object, object] = {}

    def leader(member: object) -> object:
        while (above := leaders.setdefault(member, member)) != member:
            leaders[member] = member = leaders[above]
        return member

    groups: dict[object, list[Column]] = {}
    for column in columns:
        for member in [*holders[column], *([column.dataset] if len(columns) <= NARROW else [])]:
            leaders[leader(member)] = leader(column)
    for column in columns:
        groups.setdefault(leader(column), []).append(column)
    return list(groups.values())


def _by_data_set(columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """One table for each data set, split into boxes and masks where it would be wide; columns ordered by protocol."""
    by_dataset: dict[str, dict[str, list[Column]]] = {}
    for column in columns:
        by_dataset.setdefault(column.dataset, {}).setdefault(column.protocol_key, []).append(column)
    tables = []
    for dataset, by_protocol in by_dataset.items():
        members = [column for same in by_protocol.values() for column in same]
        kinds = {", boxes": "box_", ", masks": "mask_"} if len(members) > NARROW else {"": ""}
        for kind, prefix in kinds.items():
            if group := [column for column in members if column.metric.startswith(prefix)]:
                tables.append((dataset + kind, group))
    return tables


def _compare(table: Table, published: PublishedTable) -> Comparison:
    places, refusals = _match(table, published)
    rows: list[tuple[str, list[float]]] = []
    gaps: list[tuple[Row, str, list[float]]] = []
    for model in dict.fromkeys(column.model for column in published.columns):
        known = {column: p for (_, column), p in places.items() if published.columns[p].model == model}
        of_model: dict[str, list[float]] = {}
        for name, values in published.rows:
            numbers = [values[known[column]] if column in known else math.nan for column in table.columns]
            if any(map(math.isfinite, numbers)):
                of_model[f"{name}, {model}" if model else name] = numbers
        rows += of_model.items()
        # Differences are to the reference row; to the last one where that has no number here.
        reference = f"{published.reference}, {model}" if model else published.reference
        reference = reference if reference in of_model else next(reversed(of_model), "")
        for row in table.rows if of_model else ():
            numbers = [
                row.means[column].value - number if places.get((row, column), -1) == known.get(column) else math.nan
                for column, number in zip(table.columns, of_model[reference], strict=True)
            ]
            if any(map(math.isfinite, numbers)):
                gaps.append((row, reference, numbers))
    gaps.sort(key=lambda gap: gap[0].number)
    return Comparison(published, rows, gaps, refusal_texts(refusals))


def _match(table: Table, published: PublishedTable) -> tuple[dict[tuple[Row, Column], int], list[tuple[str, str, str]]]:
    """Our row and column → place of the published column that it can be compared with; refusals of the others."""
    places: dict[tuple[Row, Column], int] = {}
    refusals: list[tuple[str, str, str]] = []
    for column in table.columns:
        candidates = {place: other for place, other in enumerate(published.columns) if other.measures(column)}
        for row in (row for row in table.rows if candidates and column in row.means):
            fitting = [p for p, other in candidates.items() if not why_not(published, [other], column, row.runs)]
            if fitting:
                places[row, column] = fitting[0]
            elif reason := why_not(published, list(candidates.values()), column, row.runs):
                refusals.append((reason, column.dataset, f"row {row.number}"))
    return places, refusals


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
