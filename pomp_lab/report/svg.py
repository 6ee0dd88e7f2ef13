"""matplotlib's figures as SVG for a page: colours that follow the page, text that stays text, a title and tips."""

from __future__ import annotations

import html
import io
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Drawn in these, shown in the page's own colours, which are others on a dark screen. No other colour may be used.
INK, SOFT, GRID, PAPER = "#a10001", "#a10002", "#a10003", "#a10004"
SERIES = tuple(f"#a1001{number}" for number in range(6))
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (1, 3)))
VARIABLES = {INK: "--ink", SOFT: "--soft", GRID: "--line", PAPER: "--paper"}
VARIABLES |= {colour: f"--series-{number}" for number, colour in enumerate(SERIES)}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same numbers give the same text
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    # Names of runs are no formulas.
    "text.parse_math": False,
}


def _adapt(tag: str, key: str) -> str:
    """A tag with ids of its own in the page, the page's colours and the page's font."""
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', tag)
    tag = re.sub(r'\bhref="#([^"]+)"', rf'href="#{key}-\1"', tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", tag)
    for colour, variable in VARIABLES.items():
        tag = tag.replace(colour, f"var({variable})")
    return re.sub(r"font: ([^;\"]*?)(\d[\d.]*px) [^;\"]*", r"font: \1\2 system-ui, sans-serif", tag)


def as_svg(figure: Figure, key: str, title: str, description: str, tips: dict[str, str] | None = None) -> str:
    """An ``<svg>`` element.

    Args:
        key: unique in the page; all ids begin with it.
        title: what it is, for those who hear the page.
        description: what it shows.
        tips: id given with ``set_gid`` → text shown when the pointer rests there.
    """
    stream = io.StringIO()
    with warnings.catch_warnings():
        # Letters that matplotlib's own font lacks are drawn by the reader's.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", lambda tag: _adapt(tag.group(), key), text)
    for name, tip in (tips or {}).items():
        text = text.replace(f'<g id="{key}-{name}">', f'<g id="{key}-{name}"><title>{html.escape(tip)}</title>', 1)
    head = re.match(r"<svg[^>]*>", text)
    assert head is not None
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head.group())
    assert size is not None
    width = float(size.group(1)) / 10
    opening = (
        f'<svg {size.group()} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-labelledby="{key}-title {key}-desc" style="overflow: visible; width: {width:.1f}rem">'
        f'<title id="{key}-title">{html.escape(title)}</title><desc id="{key}-desc">{html.escape(description)}</desc>'
    )
    return opening + text[head.end() :]
