"""A table of the paper as blocks of text: our numbers, the comparison with published ones, and the published ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pomp_lab.report.columns import Column, ordered_columns
from pomp_lab.report.comparable import why_not
from pomp_lab.report.page import markdown_table, plain
from pomp_lab.report.published import PublishedColumn, PublishedTable, load_published, with_averages
from pomp_lab.report.results import read_runs
from pomp_lab.report.rows import CHOSEN, number_text
from pomp_lab.report.rows import Row as ReportRow
from pomp_lab.report.tables import refusal_texts
from pomp_lab.runs import Document
from pomp_lab.tables.plan import Published, Row, Table
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.files import write_text
from prompt_core.visible import say


@dataclass(frozen=True)
class Block:
    """A heading, sentences, and cells whose first column is text."""

    title: str
    notes: tuple[str, ...] = ()
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def table_blocks(
    table: Table, documents: Mapping[Row, Sequence[Document]], impossible: Mapping[Row, str] | None = None
) -> list[Block]:
    """Our numbers, the comparison with published ones of the same protocol, and the published tables.

    Args:
        documents: the ``metrics.json`` documents of each row, one for each seed.
        impossible: why a row has none.
    """
    lines = {row: _read(row, of_row) for row, of_row in documents.items()}
    runs = [run for line in lines.values() for run in line.runs]
    columns = ordered_columns(column for run in runs for column in run.numbers if column.metric in table.metrics)
    what = "Top-1 in percent" if table.metrics == ("top1",) else "Lower is better"
    several = any(len(line.runs) > 1 for line in lines.values())
    notes = [table.note, f"{what}; mean over seeds ± half the range." if several else f"{what}; one run each."]
    notes += [f"{row.name}: not possible here: {reason}" for row, reason in (impossible or {}).items()]
    for row, line in lines.items():
        reasons = [reason for run in line.runs for reason in run.about.get("skipped", {}).items()]
        notes += [f"{row.name}: nothing for {dataset}: {reason}" for dataset, reason in reasons]
    if any(run.selected_on_test for run in runs):
        notes.append(f"{CHOSEN} the epoch was chosen on the reported images, as published: these are optimistic.")
    headings = ("row", "runs", *(_heading(column, columns) for column in columns))
    rows = [(line.marked, str(len(line.runs)), *(_text(line, column) for column in columns)) for line in lines.values()]
    blocks = [Block(table.title, tuple(filter(None, dict.fromkeys(notes))), headings, tuple(rows))]
    comparison, reasons = _comparison(lines, columns)
    if comparison or reasons:
        headings = ("row", "data set", "ours", "published", "difference") if comparison else ()
        blocks.append(Block("Beside the published numbers", tuple(reasons), headings, tuple(comparison)))
    return [*blocks, *published_blocks(table)]


def _read(row: Row, documents: Sequence[Document]) -> ReportRow:
    """A row's documents as reports read them."""
    named = [{**document, "_run": {**document["_run"], "row": row.name}} for document in documents]
    runs = [run for place, document in enumerate(named) for run in read_runs(Path("results"), document, str(place))]
    return ReportRow(0, row.name, tuple(map(with_averages, runs)), {})


def _text(line: ReportRow, column: Column) -> str:
    mean = line.means.get(column)
    return mean.text(column.metric, line.seeds) if mean else ""


def _heading(column: Column, columns: Sequence[Column]) -> str:
    several = len({column.metric for column in columns}) > 1
    name = f"{column.dataset}, {column.label}" if several else column.dataset
    return f"{name}: {column.difference}" if column.difference else name


def _comparison(lines: Mapping[Row, ReportRow], columns: Sequence[Column]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of row, data set, ours, published, difference; and which numbers cannot be compared, and why."""
    rows: list[tuple[str, ...]] = []
    refusals: list[tuple[str, str, str]] = []
    for row, line in lines.items():
        for published, column in itertools.product(row.published, columns):
            place, ours = published_number(published, column), line.defined(column)
            if place is None or ours is None:
                continue
            table, published_column, value = place
            if reason := why_not(table, [published_column], column, line.runs):
                refusals.append((f"not compared, {reason}", column.dataset, row.name))
                continue
            gap = number_text(ours.value - value, column.metric, signed=True)
            texts = (ours.text(column.metric, line.seeds), number_text(value, column.metric), gap)
            name = row.name + (f" {CHOSEN}" if ON_REPORTED in column.protocol.values() else "")
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


def published_blocks(table: Table) -> list[Block]:
    """The published tables that are shown below a table."""
    return [_published_block(published, table) for published in load_published() if published.name in table.published]


def _published_block(published: PublishedTable, table: Table) -> Block:
    rows = [
        (name, *("" if math.isnan(value) else f"{value:.1f}" for value in values)) for name, values in published.rows
    ]
    notes = [f"{published.source}. {published.protocol}."]
    if table.scale == "laptop":
        notes.append("Other data, another model and another protocol: no number of ours may be set against these.")
    headings = ("method", *(column.heading for column in published.columns))
    return Block(f"Published: {published.name}", tuple(notes), headings, tuple(rows))


def listing(table: Table, states: Mapping[str, str]) -> Block:
    """The state of each run, and how many are done."""
    done = sum(state == "done" for state in states.values())
    impossible = sum(state.startswith("not possible") for state in states.values())
    text = f"{done} of {len(states)} runs done" + (f", {impossible} not possible here." if impossible else ".")
    return Block(table.title, (text,), ("run", "state"), tuple(states.items()))


def write_blocks(blocks: Sequence[Block], file: Path) -> None:
    """One Markdown file."""
    parts = []
    for number, block in enumerate(blocks):
        parts += [f"{'##' if number else '#'} {plain(block.title)}", *map(plain, block.notes)]
        if block.headings:
            parts.append(markdown_table(block.headings, block.rows))
    write_text(file, "\n\n".join(parts) + "\n")


def print_blocks(blocks: Sequence[Block]) -> None:
    """For a terminal."""
    from rich.table import Table as RichTable

    from prompt_core.command_line import print_table

    for block in blocks:
        if block.headings:
            shown = RichTable(title=block.title)
            for place, heading in enumerate(block.headings):
                shown.add_column(heading, justify="right" if place else "left", overflow="fold")
            for row in block.rows:
                shown.add_row(*row)
            print_table(shown)
        for note in block.notes:
            say(note)
