"""A report from runs to files: read, arrange, join, draw, write; both files or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pomp_lab.demo.pictures import require_matplotlib
from pomp_lab.report.averages import with_averages
from pomp_lab.report.beside import Beside, published_beside
from pomp_lab.report.columns import Column, build_columns, task_of
from pomp_lab.report.formats import Run
from pomp_lab.report.plots import Plot, draw_curves, draw_gain, draw_pairs, draw_sweeps
from pomp_lab.report.rows import Row, group_rows
from pomp_lab.report.runs import Found, find_runs
from pomp_lab.report.sweeps import base_novel_pairs, class_gains, find_baselines, sweeps
from pomp_lab.report.tables import Table, build_tables
from prompt_core.files import make_output_folder, write_text

MOST_GAINS = 12


@dataclass(frozen=True)
class Report:
    """All that is told.

    Attributes:
        beside: key of a table → published numbers beside it, and which may not stand there.
        baselines: rows that others are compared with, the first that fits.
        notes: what the reader must know first.
    """

    found: Found
    rows: list[Row]
    columns: list[Column]
    tables: list[Table]
    beside: dict[str, list[Beside]]
    plots: list[Plot]
    baselines: list[Row]
    notes: list[str]


def write_report(
    arguments: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str], baseline: str | None = None
) -> Report:
    """Read runs and write ``report.md`` and ``report.html`` to the folder ``output``.

    Args:
        arguments: see :func:`pomp_lab.report.runs.find_runs`.
        baseline: label of the row, or name of a run, that gains of classes are taken over; default a hand prompt.

    Raises:
        UserError: when the runs cannot be read, ``baseline`` is not among them, or ``output`` cannot be written.
    """
    from pomp_lab.report.markdown import render_markdown
    from pomp_lab.report.page import render_page

    require_matplotlib()
    report = build_report(find_runs(arguments), baseline)
    texts = {"report.md": render_markdown(report), "report.html": render_page(report)}
    folder = make_output_folder(output)
    for name, text in texts.items():
        # Names may hold halves of surrogate pairs, which JSON allows and UTF-8 does not.
        write_text(Path(folder) / name, text.encode("utf-8", "replace").decode("utf-8"))
    return report


def build_report(found: Found, baseline: str | None = None) -> Report:
    """Arrange what was read.

    Raises:
        UserError: when ``baseline`` is not among the rows.
    """
    runs = [with_averages(run) for run in found.runs]
    rows, columns = group_rows(runs), build_columns(runs)
    tables = build_tables(rows, columns)
    baselines = find_baselines(rows, baseline)
    beside = {table.key: blocks for table in tables if (blocks := published_beside(table))}
    return Report(
        found,
        rows,
        columns,
        tables,
        beside,
        _plots(rows, columns, baselines),
        baselines,
        _notes(found, tables, columns),
    )


def _plots(rows: Sequence[Row], columns: Sequence[Column], baselines: Sequence[Row]) -> list[Plot]:
    plots = []
    accuracy = [column for column in columns if column.metric in ("top1", "accuracy") and column.task != "training"]
    for setting in ("K", "correction"):
        if found := sweeps(rows, accuracy, setting, baselines):
            plots.append(draw_sweeps(found, f"plot-{setting.lower()}", setting))
    if pairs := base_novel_pairs(rows, columns):
        plots.append(draw_pairs(pairs, "plot-base-novel"))
    gains = class_gains(rows, columns, baselines)
    for number, gain in enumerate(gains[:MOST_GAINS], 1):
        plots.append(
            draw_gain(gain, f"plot-classes-{number}", max(0, len(gains) - number) if number == MOST_GAINS else 0)
        )
    curves: dict[tuple[str, str], list[Run]] = {}
    for run in (run for row in rows for run in row.runs if run.history):
        axis = "epoch" if "epoch" in run.history[0] else "iteration"
        curves.setdefault((_learned(run, axis), axis), []).append(run)
    for number, ((title, axis), members) in enumerate(curves.items(), 1):
        plots.append(draw_curves(members, f"plot-curves-{number}", title, axis))
    return plots


def _learned(run: Run, axis: str) -> str:
    tasks = {task_of(part.dataset, metric) for part in run.parts for metric in part.numbers}
    if axis == "epoch" or "training" in tasks:
        return "Prompts"
    return "Detectors" if "detection" in tasks else "Segmenters" if "segmentation" in tasks else "Other runs"


def _notes(found: Found, tables: Sequence[Table], columns: Sequence[Column]) -> list[str]:
    notes = []
    if chosen := [run.name for run in found.runs if run.selected_on_test]:
        notes.append(
            f"The checkpoint of {_listed(chosen)} was chosen on the very images that are reported: those numbers are "
            "optimistic, and stand in columns of their own."
        )
    split = list(dict.fromkeys(column.dataset for column in columns if column.words and column.task != "training"))
    if split:
        notes.append(f"There are several protocols on {_listed(split)}: each has columns of its own.")
    unstated = [run.name for run in found.runs if any("protocol" in part.protocol for part in run.parts)]
    if unstated:
        notes.append(f"No protocol is stated by {_listed(unstated)}: such numbers stand alone.")
    if damaged := [f"{each.path}: {each.reason}" for each in found.ignored if each.damaged]:
        notes.append(f"Could not be read and is left out: {_listed(damaged)}.")
    if not tables:
        notes.append("The runs hold no numbers that could be compared; learning curves, if any, are below.")
    return notes


def _listed(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
