"""A table of the paper as blocks of text: our numbers, the comparison with published ones, and the published ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.report.columns import Column, ordered_columns
from pomp_lab.report.comparable import why_not
from pomp_lab.report.page import markdown_table, plain
from pomp_lab.report.published import PublishedColumn, PublishedTable, load_published, with_averages
from pomp_lab.report.results import Run, read_runs
from pomp_lab.report.rows import CHOSEN, number_text
from pomp_lab.report.rows import Row as ReportRow
from pomp_lab.report.tables import refusal_texts
from pomp_lab.tables.plan import Published, Row, Table
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.files import write_text


@dataclass(frozen=True)
class Block:
    """A heading, sentences, and cells whose first column is text."""

    title: str
    notes: tuple[str, ...] = ()
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Line:
    """A row of the table with its numbers.

    Attributes:
        numbers: its runs, one per seed, as reports read them.
        note: why it has none.
    """

    row: Row
    numbers: ReportRow
    note: str = ""


def read_line(row: Row, documents: Sequence[Mapping[str, Any]], note: str = "") -> Line:
    """A row from its ``metrics.json`` documents, one per seed."""
    runs: list[Run] = []
    for number, document in enumerate(documents):
        named = {**document, "_run": {**document["_run"], "row": row.name}}
        runs += read_runs(Path("results"), named, f"{row.name} {number}")
    return Line(row, ReportRow(0, row.name, tuple(map(with_averages, runs)), {}), note)


def table_blocks(table: Table, lines: Sequence[Line]) -> list[Block]:
    """Our numbers, the comparison with published ones of the same protocol, and the published tables."""
    runs = [run for line in lines for run in line.numbers.runs]
    columns = ordered_columns(column for run in runs for column in run.numbers if column.metric in table.metrics)
    what = "Top-1 in percent" if table.metrics == ("top1",) else "Lower is better"
    several = any(len(line.numbers.runs) > 1 for line in lines)
    notes = [table.note, f"{what}; mean over seeds ± half the range." if several else f"{what}; one run each."]
    notes += [f"{line.row.name}: {line.note}" for line in lines if line.note]
    skipped = {
        f"{line.row.name}: nothing for {dataset}: {reason}": None
        for line in lines
        for run in line.numbers.runs
        for dataset, reason in run.about.get("skipped", {}).items()
    }
    notes += skipped
    if any(run.selected_on_test for run in runs):
        notes.append(f"{CHOSEN} the epoch was chosen on the reported images, as published: these are optimistic.")
    headings = ("row", "runs", *(_heading(column, columns) for column in columns))
    rows = [
        (line.numbers.marked, str(len(line.numbers.runs)), *(_text(line.numbers, column) for column in columns))
        for line in lines
    ]
    blocks = [Block(table.title, tuple(filter(None, notes)), headings, tuple(rows))]
    comparison, reasons = _comparison(lines, columns)
    if comparison or reasons:
        headings = ("row", "data set", "ours", "published", "difference") if comparison else ()
        blocks.append(Block("Beside the published numbers", tuple(reasons), headings, tuple(comparison)))
    known = {published.name: published for published in load_published()}
    return [*blocks, *(_published_block(known[name], table) for name in table.published)]


def _text(row: ReportRow, column: Column) -> str:
    numbers = row.means.get(column)
    return numbers.text(column.metric, row.seeds) if numbers else ""


def _heading(column: Column, columns: Sequence[Column]) -> str:
    metrics = {column.metric for column in columns}
    name = f"{column.dataset}, {column.label}" if len(metrics) > 1 else column.dataset
    return f"{name}: {column.difference}" if column.difference else name


def _comparison(lines: Sequence[Line], columns: Sequence[Column]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of row, data set, ours, published, difference; and which numbers cannot be compared, and why."""
    rows: list[tuple[str, ...]] = []
    refusals: list[tuple[str, str, str]] = []
    for line in lines:
        for published, column in itertools.product(line.row.published, columns):
            place, ours = published_number(published, column), line.numbers.defined(column)
            if place is None or ours is None:
                continue
            table, published_column, value = place
            if reason := why_not(table, [published_column], column, line.numbers.runs):
                refusals.append((f"not compared, {reason}", column.dataset, line.row.name))
                continue
            gap = number_text(ours.value - value, column.metric, signed=True)
            texts = (ours.text(column.metric, line.numbers.seeds), number_text(value, column.metric), gap)
            name = line.row.name + (f" {CHOSEN}" if ON_REPORTED in column.protocol.values() else "")
            rows.append((name, column.dataset, *texts))
    return rows, refusal_texts(refusals)


def published_number(published: Published, column: Column) -> tuple[PublishedTable, PublishedColumn, float] | None:
    """The published number of a row that belongs to a column, with its table and column, or None."""
    table = next(table for table in load_published() if table.name == published.table)
    values = dict(table.rows)[published.row]
    for candidate, value in zip(table.columns, values, strict=True):
        if published.column:
            measured = (column.dataset, column.metric) == (published.dataset, "top1")
            fits = candidate.name == published.column and measured
        else:
            fits = candidate.model == published.model and candidate.measures(column)
        if fits and math.isfinite(value):
            return table, candidate, value
    return None


def _published_block(published: PublishedTable, table: Table) -> Block:
    rows = [
        (name, *("" if math.isnan(value) else f"{value:.1f}" for value in values)) for name, values in published.rows
    ]
    notes = [f"{published.source}. {published.protocol}."]
    if table.scale == "laptop":
        notes.append("Other data, another model and another protocol: no number of ours may be set against these.")
    headings = ("method", *(column.heading for column in published.columns))
    return Block(f"Published: {published.name}", tuple(notes), headings, tuple(rows))


def write_blocks(blocks: Sequence[Block], file: Path) -> None:
    """One Markdown file."""
    parts = []
    for number, block in enumerate(blocks):
        parts += [f"{'#' if not number else '##'} {plain(block.title)}", *map(plain, block.notes)]
        if block.headings:
            parts.append(markdown_table(block.headings, block.rows))
    write_text(file, "\n\n".join(parts) + "\n")


def print_blocks(blocks: Sequence[Block]) -> None:
    """For a terminal."""
    from rich.table import Table as RichTable
    from rich.text import Text

    from prompt_core.command_line import print_table

    for block in blocks:
        if block.headings:
            shown = RichTable(title=Text(block.title))
            for place, heading in enumerate(block.headings):
                shown.add_column(Text(heading), justify="right" if place else "left", overflow="fold")
            for row in block.rows:
                shown.add_row(*map(Text, row))
            print_table(shown)
        for note in block.notes:
            print(note)
