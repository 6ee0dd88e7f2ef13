"""The report as one HTML page that needs nothing else: no network, no script, no file beside it."""

from __future__ import annotations

import math
from importlib import resources

from pomp_lab.report.build import Report
from pomp_lab.report.protocol import in_words
from pomp_lab.report.published import load_published
from pomp_lab.report.tables import cell_text, number_text
from pomp_lab.report.words import refused_words, run_facts, spread_note, summary

SECTIONS = {
    "sweeps": "K and the margin",
    "scatter": "Base against novel",
    "classes": "Class by class",
    "curves": "Learning",
}


def render_page(report: Report) -> str:
    """The page as text; every number carries its full value."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    source = resources.files("pomp_lab") / "assets" / "templates" / "report.html.j2"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals["number_text"] = number_text
    environment.globals["cell_text"] = cell_text
    sections = [
        (name, title, [(plot, Markup(plot.svg)) for plot in report.plots if plot.section == name])
        for name, title in SECTIONS.items()
    ]
    protocols = {(column.dataset, column.key[2]): column for column in report.columns}
    return environment.from_string(source.read_text(encoding="utf-8")).render(
        report=report,
        summary=summary(report),
        main=[table for table in report.tables if table.main],
        more=[table for table in report.tables if not table.main],
        spread_note=spread_note,
        refused_words=refused_words,
        sections=[section for section in sections if section[2]],
        protocols=[(column.dataset, in_words(column.protocol)) for column in protocols.values()],
        facts=[run_facts(run, row) for row in report.rows for run in row.runs],
        published=load_published(),
        finite=math.isfinite,
    )
