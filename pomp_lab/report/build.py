"""A report from runs to files: read, arrange, compare, plot, write both files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pomp_lab.report.columns import LOWER_IS_BETTER, Column, ordered_columns
from pomp_lab.report.find import FoundRuns, Ignored, find_runs
from pomp_lab.report.page import Cell, Figure, Page, Section, render_html, render_markdown
from pomp_lab.report.page import Table as PageTable
from pomp_lab.report.plots import draw_curves, draw_gains, draw_pairs, draw_sweeps, plot_style, require_matplotlib
from pomp_lab.report.protocol_text import phrases
from pomp_lab.report.published import load_published, with_averages
from pomp_lab.report.results import Run
from pomp_lab.report.rows import CHOSEN, Row, group_rows, number_text
from pomp_lab.report.sweeps import base_novel_pairs, class_gains, find_baselines, sweeps
from pomp_lab.report.tables import Table, build_tables, few
from prompt_core.files import make_output_folder, write_text
from prompt_core.visible import visible

_VERSIONS = ("prompt_core", "torch", "detectron2", "open_clip_torch")


@dataclass(frozen=True)
class Report:
    """Everything that the page shows.

    Attributes:
        runs, ignored: the runs that were read, and the JSON files that hold none.
        plots: title of a section → its figures.
        baselines: rows that others are compared with; the first that fits is taken.
    """

    runs: list[Run]
    ignored: list[Ignored]
    rows: list[Row]
    columns: list[Column]
    tables: list[Table]
    plots: dict[str, list[Figure]]
    baselines: list[Row]

    @property
    def summary(self) -> str:
        """The numbers of runs, rows and data sets, in a sentence."""
        datasets = {c.dataset for c in self.columns if c.task != "training" and "mean_of" not in c.protocol}
        runs, rows = _counted(len(self.runs), "run"), _counted(len(self.rows), "row")
        text = f"{runs} in {rows} on {_counted(len(datasets), 'data set')}; each protocol has its own columns."
        if self.ignored:
            text += f" Not read as results: {_counted(len(self.ignored), 'other JSON file')}."
        return text

    @property
    def notes(self) -> list[str]:
        """Sentences that the reader must know first."""
        notes = []
        if chosen := [run.name for run in self.runs if run.selected_on_test]:
            notes.append(
                f"Checkpoints chosen on the very images that are reported: {few(chosen)}. Their numbers are optimistic "
                "and have their own columns."
            )
        if split := list(dict.fromkeys(c.dataset for c in self.columns if c.difference and c.task != "training")):
            notes.append(f"Several protocols were used on {few(split)}; each has its own columns.")
        if unstated := [run.name for run in self.runs if any("protocol" in c.protocol for c in run.numbers)]:
            notes.append(f"No protocol is stated by {few(unstated)}; their numbers have their own columns.")
        if damaged := [f"{file.path}: {file.reason}" for file in self.ignored if file.damaged]:
            notes.append(f"Could not be read, and left out: {few(damaged)}.")
        if not self.tables:
            notes.append("The runs have no numbers to compare; learning curves, if any, are below.")
        return [visible(" ".join(note.split())) for note in notes]


def write_report(
    arguments: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str], baseline: str | None = None
) -> Report:
    """Read runs and write ``report.md`` and ``report.html`` to the folder ``output``.

    Args:
        arguments: see :func:`pomp_lab.report.find.find_runs`.
        baseline: label of the row, or name of a run, that gains of classes are computed against; default a hand prompt.

    Raises:
        UserError: when the runs cannot be read, ``baseline`` is not among them, or ``output`` cannot be written.
    """
    require_matplotlib()
    report = build_report(find_runs(arguments), baseline)
    page = report_page(report)
    texts = {"report.md": render_markdown(page, "report.html"), "report.html": render_html(page)}
    folder = make_output_folder(output)
    for name, text in texts.items():
        write_text(Path(folder) / name, text)
    return report


def build_report(files: FoundRuns, baseline: str | None = None) -> Report:
    """Arrange, compare and plot what was read.

    Raises:
        UserError: when ``baseline`` is not among the rows.
    """
    runs = [with_averages(run) for run in files.runs]
    rows, columns = group_rows(runs), ordered_columns(column for run in runs for column in run.numbers)
    tables, baselines = build_tables(rows, columns), find_baselines(rows, baseline)
    plots = _plots(rows, columns, baselines)
    return Report(files.runs, files.ignored, rows, columns, tables, plots, baselines)


def report_page(report: Report) -> Page:
    """All sections: tables with published numbers, plots, other metrics, protocols, runs, the published tables."""
    main = [_table_section(table) for table in report.tables if table.main]
    other = [_table_section(table) for table in report.tables if not table.main]
    compared = any(table.comparisons for table in report.tables)
    none = [] if compared else ["No published table has these data sets and metrics."]
    sections = [Section("Numbers", none), *main] if main else []
    sections += [Section(title, figures) for title, figures in report.plots.items()]
    sections += [Section("More metrics", []), *other] if other else []
    protocols = {column.place: "; ".join(phrases(column.protocol)) for column in report.columns}
    lines = [(dataset, words) for (dataset, _), words in protocols.items()]
    sections.append(_texts("Protocols", ("data set", "protocol"), lines))
    headings = ("run", "row", "seed", "file", "command", "device", "versions")
    sections.append(_texts("Runs", headings, [_run_facts(run, row) for row in report.rows for run in row.runs]))
    if report.ignored:
        table = PageTable(("file", "reason"), [(str(file.path), file.reason) for file in report.ignored], numeric=False)
        sections.append(Section("JSON files that were not read as results", [table], level=3, folded=True))
    about = (
        "The published tables in full, for reference; our own tables list only those numbers that were measured on the "
        "same images with the same candidates, metric and model. Percent, unless a column says otherwise."
    )
    sections.append(Section("Published numbers", [about]))
    for published in load_published():
        names = ("method", *(column.heading for column in published.columns))
        rows: list[Sequence[Cell | str]] = []
        for name, values in published.rows:
            rows.append([name, *(Cell(number_text(value, ""), value) for value in values)])
        sections.append(Section(published.name, [PageTable(names, rows, published.about)], level=3, folded=True))
    return Page("Results", [report.summary], sections, report.notes)


def _texts(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> Section:
    return Section(title, [PageTable(headings, lines, numeric=False)], folded=len(lines) > 4)


def _table_section(table: Table) -> Section:
    """Our rows, and below them the published ones and the differences to them; then what cannot be compared."""
    best = {column: table.best(column) for column in table.columns}
    rows: list[Sequence[Cell | str] | str] = []
    for row in table.rows:
        cells: list[Cell | str] = []
        for column in table.columns:
            mean = row.means.get(column)
            bold = mean is not None and number_text(mean.value, column.metric) == best[column]
            cells.append(Cell(mean.text(column.metric, row.seeds), mean.value, bold) if mean else "")
        rows.append([f"{row.number}. {row.marked}", str(row.seeds), *cells])
    paragraphs = []
    for comparison in table.comparisons:
        published = comparison.published
        rows += [f"Published: {published.name}. {published.about}"] if comparison.rows else []
        rows += [[label, "", *_cells(table, numbers)] for label, numbers in comparison.rows]
        for row, reference, gaps in comparison.gaps:
            rows.append([f"{row.marked} − {reference}", "", *_cells(table, gaps, signed=True)])
        if comparison.refused:
            reasons = "; ".join(comparison.refused)
            paragraphs.append(f"Not comparable with “{published.name}” (in full below): {reasons}.")
    if any(row.marked != row.label for row in table.rows):
        paragraphs.append(f"{CHOSEN} checkpoint chosen on the reported images.")
    page_table = PageTable(("row", "seeds", *table.headings), rows, _caption(table, any(best.values())))
    return Section(table.title, [page_table, *paragraphs], level=3)


def _cells(table: Table, numbers: Sequence[float], signed: bool = False) -> list[Cell | str]:
    """One for each column; empty where there is no number to compare."""
    pairs = zip(numbers, table.columns, strict=True)
    return [Cell(number_text(x, column.metric, signed), x) if math.isfinite(x) else "" for x, column in pairs]


def _caption(table: Table, any_best: bool) -> str:
    """Unit, averaging and common protocol of a table's numbers."""
    percent = any(column.metric not in LOWER_IS_BETTER for column in table.columns)
    several = any(mean.count > 1 for row in table.rows for column in table.columns if (mean := row.defined(column)))
    text = "Percent; " if percent else "Lower is better; "
    text += "mean over seeds ± half the range." if several else "one run each."
    text += " Bold: the best mean of a column, whatever its spread." if any_best else ""
    return f"{text} Protocol: {table.common_protocol}." if table.common_protocol else text


def _run_facts(run: Run, row: Row) -> tuple[str, ...]:
    stated = run.about.get("versions")
    versions = stated if isinstance(stated, dict) else {}
    seed = run.settings.get("seed", run.about.get("seed"))
    details = [str(run.about.get(key) or "") for key in ("command", "device")]
    packages = ", ".join(f"{name} {versions[name]}" for name in _VERSIONS if name in versions)
    return run.name, str(row.number), "" if seed is None else str(seed), str(run.file), *details, packages


def _plots(rows: Sequence[Row], columns: Sequence[Column], baselines: Sequence[Row]) -> dict[str, list[Figure]]:
    accuracy = [column for column in columns if column.metric in ("top1", "accuracy") and column.task != "training"]
    curves: dict[tuple[str, str], list[Run]] = {}
    for run in (run for row in rows for run in row.runs if run.history):
        axis = "epoch" if "epoch" in run.history[0] else "iteration"
        curves.setdefault((_what_learned(run, axis), axis), []).append(run)
    with plot_style():
        plots = {
            "K and the margin": [
                figure
                for setting in ("K", "correction")
                for figure in draw_sweeps(sweeps(rows, accuracy, setting, baselines), setting)
            ],
            "Base against novel": draw_pairs(base_novel_pairs(rows, columns)),
            "Class by class": draw_gains(class_gains(rows, baselines)),
            "Learning": [draw_curves(runs, title, axis) for (title, axis), runs in curves.items()],
        }
    return {title: figures for title, figures in plots.items() if figures}


def _what_learned(run: Run, axis: str) -> str:
    tasks = {column.task for column in run.numbers}
    if axis == "epoch" or "training" in tasks:
        return "Prompts"
    return "Detectors" if "detection" in tasks else "Segmenters" if "segmentation" in tasks else "Other runs"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
