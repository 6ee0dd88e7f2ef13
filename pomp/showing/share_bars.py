"""Words with numbers, as rows of bars."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from prompt_core.visible import visible


@dataclass(frozen=True)
class Bar:
    """A row.

    Attributes:
        name: a word.
        share: 0 to 1, the length.
        text: what stands behind it; the share in percent where it is left out.
        colour: of the bar; that of the page where it is left out.
        scores: of the things that the row counts; a page that hides things below a threshold counts again.
        quiet: for what is none of the words.
    """

    name: str
    share: float
    text: str = ""
    colour: str = ""
    scores: tuple[float, ...] | None = None
    quiet: bool = False


def bars(rows: Sequence[Bar], threshold: float = 0.0) -> str:
    """A table of rows with a name, a bar and a number each."""
    return f'<table class="bars"><tbody>{"".join(_row(row, threshold) for row in rows)}</tbody></table>'


def percent(share: float) -> str:
    """A share for people: no digits that nobody needs."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _row(row: Bar, threshold: float) -> str:
    counted = ""
    text = row.text or percent(row.share)
    if row.scores is not None:
        counted = f' data-scores="{" ".join(f"{score:.6f}" for score in row.scores)}"'
        text = str(sum(score >= threshold for score in row.scores))
    colour = f";background:{row.colour}" if row.colour else ""
    share = min(max(row.share, 0.0), 1.0)
    quiet = ' class="quiet"' if row.quiet else ""
    return (
        f'<tr{quiet}><th scope="row">{html.escape(visible(row.name))}</th>'
        f'<td class="bar"><div style="width:{100 * share:.2f}%{colour}"></div></td>'
        f'<td class="number"{counted}>{html.escape(text)}</td></tr>'
    )
