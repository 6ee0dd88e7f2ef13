"""Sentences that the Markdown and the page share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pomp_lab.report.beside import Beside
from pomp_lab.report.formats import Run
from pomp_lab.report.rows import Row
from pomp_lab.report.tables import Table

if TYPE_CHECKING:
    from pomp_lab.report.build import Report

_VERSIONS = ("prompt_core", "torch", "detectron2", "open_clip_torch")


def counted(number: int, word: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def summary(report: Report) -> str:
    """How much there is."""
    datasets = {
        column.dataset for column in report.columns if column.task != "training" and "mean_of" not in column.protocol
    }
    runs, rows = counted(len(report.found.runs), "run"), counted(len(report.rows), "row")
    text = f"{runs} in {rows} on {counted(len(datasets), 'data set')}, each protocol in columns of its own."
    if report.found.ignored:
        text += f" Not read as results: {counted(len(report.found.ignored), 'other JSON file')} there."
    return text


def spread_note(table: Table) -> str:
    """What the numbers of a table are."""
    unit = (
        "Percent"
        if any(column.metric not in ("alignment", "uniformity") for column in table.columns)
        else "Lower is better"
    )
    spread = any(cell and cell.count > 1 for cells in table.cells for cell in cells)
    text = f"{unit}; mean over seeds ± half the range." if spread else f"{unit}; one run each."
    return text + (" Bold: the best mean of a column, whatever the spread." if any(table.best) else "")


def refused_words(block: Beside) -> str:
    """Which numbers are not set against a published table, and why; empty when all are."""
    if not block.refused:
        return ""
    return f"Not compared with “{block.published.name}”, which stands whole below: {'; '.join(block.refused)}."


def run_facts(run: Run, row: Row) -> dict[str, str]:
    """A line of the list of runs."""
    stated = run.about.get("versions")
    versions = stated if isinstance(stated, dict) else {}
    seed = run.settings.get("seed", run.about.get("seed"))
    return {
        "run": run.name,
        "row": str(row.number),
        "seed": "" if seed is None else str(seed),
        "file": str(run.file),
        "command": str(run.about.get("command") or ""),
        "device": str(run.about.get("device") or ""),
        "versions": ", ".join(f"{name} {versions[name]}" for name in _VERSIONS if name in versions),
    }
