"""A page of sections with paragraphs, tables and figures: one HTML file that needs nothing else, or Markdown."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Literal, NamedTuple

from prompt_core.visible import visible


class Cell(NamedTuple):
    """Text of a table; ``value`` is the number in full, if there is one, ``bold`` marks the best of a column."""

    text: str
    value: float = math.nan
    bold: bool = False

    @property
    def has_value(self) -> bool:
        """Whether the number is defined."""
        return math.isfinite(self.value)


@dataclass(frozen=True)
class Table:
    """Rows below headings; a row that is a text spans all columns and says what follows.

    The first column holds names, the others numbers, or texts where ``numeric`` is false.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell | str] | str]
    caption: str = ""
    numeric: bool = True

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The cells as texts, for a terminal."""
        rows = [[row] if isinstance(row, str) else row for row in self.rows]
        return [tuple(cell.text if isinstance(cell, Cell) else cell for cell in row) for row in rows]


@dataclass(frozen=True)
class Figure:
    """A picture in a format that browsers show, with a title and a caption that explains how to read it."""

    data: bytes
    media: Literal["svg+xml", "png"]
    title: str
    caption: str

    @property
    def address(self) -> str:
        """A ``data:`` address that holds the picture."""
        return f"data:image/{self.media};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Code:
    """Commands or a configuration, as they are typed."""

    text: str


@dataclass(frozen=True)
class Section:
    """A heading with its content.

    Attributes:
        blocks: in order; a text is a paragraph.
        level: 2, or 3 for a part of the section before.
        folded: whether HTML shows the heading alone until it is opened.
    """

    title: str
    blocks: Sequence[str | Table | Figure | Code]
    level: int = 2
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """A title, paragraphs, notes to read first, and sections."""

    title: str
    introduction: Sequence[str]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=tuple)


def render_html(page: Page) -> str:
    """One file without scripts or network requests; every number carries its full value."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files("pomp_lab") / "assets" / "templates" / "report.html.j2"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return visible(environment.from_string(source.read_text(encoding="utf-8")).render(page=page), lines=True)


def render_markdown(page: Page, pictures: str) -> str:
    """The page as GitHub's Markdown.

    Args:
        pictures: name of the HTML file, which shows the pictures.
    """
    parts = [f"# {plain(page.title)}", *map(plain, page.introduction), "\n".join(f"- {plain(n)}" for n in page.notes)]
    for section in page.sections:
        parts.append(f"{'#' * section.level} {plain(section.title)}")
        for block in section.blocks:
            if isinstance(block, str):
                parts.append(plain(block))
            elif isinstance(block, Code):
                parts.append(f"```\n{block.text}\n```")
            elif isinstance(block, Figure):
                parts.append(plain(f"{block.title} (in {pictures}). {block.caption}"))
            else:
                parts += [plain(block.caption), markdown_table(block.headings, block.rows, block.numeric)]
    return visible("\n\n".join(part for part in parts if part) + "\n", lines=True)


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[Cell | str] | str], numeric: bool = True) -> str:
    """A table of GitHub's Markdown; the first column is text, the others numbers. Cells are escaped here."""
    lines = [list(map(plain, headings)), ["---", *["---:" if numeric else "---"] * (len(headings) - 1)]]
    for row in rows:
        cells = [row, *[""] * (len(headings) - 1)] if isinstance(row, str) else row
        lines.append([_markdown_cell(cell) for cell in cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain(text: str) -> str:
    """Text on one line without markup: what Markdown and HTML would interpret is escaped."""
    escaped = re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _markdown_cell(cell: Cell | str) -> str:
    text = plain(cell if isinstance(cell, str) else cell.text)
    return f"**{text}**" if isinstance(cell, Cell) and cell.bold else text
