"""The report as Markdown: the tables of the page, without its drawings."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pomp_lab.report.beside import Beside
from pomp_lab.report.build import Report
from pomp_lab.report.columns import Column
from pomp_lab.report.protocol import in_words
from pomp_lab.report.published import PublishedTable, load_published
from pomp_lab.report.rows import CHOSEN
from pomp_lab.report.tables import Table, cell_text, number_text
from pomp_lab.report.words import refused_words, run_facts, spread_note, summary


def render_markdown(report: Report) -> str:
    """The whole text."""
    parts = ["# Results", summary(report), *[f"- {plain(note)}" for note in report.notes]]
    for table in report.tables:
        parts += [f"## {plain(table.title)}", f"{plain(_caption(table))}", _numbers(table, report)]
        for block in report.beside.get(table.key, []):
            if block.rows:
                parts += [f"Published: {plain(_source(block.published))}", _published_beside(table, block)]
            parts.append(plain(refused_words(block)))
    if report.tables and not report.beside:
        parts.append("None of these data sets and metrics is in a published table.")
    if report.plots:
        parts += [
            "## Drawings",
            "In `report.html`:",
            "\n".join(f"- {plain(f'{p.title}. {p.caption}')}" for p in report.plots),
        ]
    parts += ["## Protocols", _protocols(report), "## Runs", _runs(report), "## Published numbers"]
    for published in load_published():
        parts += [f"### {plain(published.name)}", plain(_source(published)), _published(published)]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's Markdown; the first column is text, the others numbers. Cells are escaped here."""
    marks = ["---", *["---:"] * (len(headings) - 1)]
    lines = [[plain(text) for text in headings], marks, *[[plain(text) for text in row] for row in rows]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain(text: str) -> str:
    """Text in which nothing is markup: on one line, with what Markdown and HTML would read escaped."""
    escaped = re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def heading(column: Column, table: Table) -> str:
    """Data set, metric and what is special in the protocol, as far as the table's title does not say it."""
    parts = []
    if len({each.dataset for each in table.columns}) > 1:
        parts.append(column.dataset)
    if len({each.metric for each in table.columns}) > 1 or not parts:
        parts.append(column.label)
    return ": ".join([", ".join(parts), *([column.words] if column.words else [])])


def _caption(table: Table) -> str:
    words = f"Protocol: {table.common}. " if table.common else ""
    return f"{words}{spread_note(table)}"


def _source(published: PublishedTable) -> str:
    return f"{published.source}. {published.protocol}."


def _numbers(table: Table, report: Report) -> str:
    rows = []
    for row, cells in zip(table.rows, table.cells, strict=True):
        texts = [cell_text(found, column, row) for found, column in zip(cells, table.columns, strict=True)]
        rows.append([f"{row.number}. {row.marked}", str(row.seeds), *texts])
    marked = any(row.marked != row.label for row in table.rows)
    note = f"\n\n{CHOSEN} checkpoint chosen on the reported images" if marked else ""
    return markdown_table(["row", "seeds", *[heading(column, table) for column in table.columns]], rows) + note


def _published_beside(table: Table, block: Beside) -> str:
    rows = [[name, *_values(values, table)] for name, values in block.rows]
    for gap in block.gaps:
        rows.append([f"{table.rows[gap.place].marked} − {gap.reference}", *_values(gap.numbers, table, signed=True)])
    return markdown_table(["published", *[heading(column, table) for column in table.columns]], rows)


def _values(values: Sequence[float], table: Table, signed: bool = False) -> list[str]:
    return [
        number_text(value, column, signed) if math.isfinite(value) else ""
        for value, column in zip(values, table.columns, strict=True)
    ]


def _published(published: PublishedTable) -> str:
    rows = [
        [name, *["–" if math.isnan(value) else f"{value:.1f}" for value in values]] for name, values in published.rows
    ]
    return markdown_table(["method", *[column.heading for column in published.columns]], rows)


def _protocols(report: Report) -> str:
    distinct = {(column.dataset, column.key[2]): column for column in report.columns}
    return "\n".join(
        f"- {plain(column.dataset)}: {plain('; '.join(in_words(column.protocol).values()))}"
        for column in distinct.values()
    )


def _runs(report: Report) -> str:
    facts = [run_facts(run, row) for row in report.rows for run in row.runs]
    names = list(facts[0])
    return markdown_table(names, [[each[name] for name in names] for each in facts])
