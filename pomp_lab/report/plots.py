"""Plots of a report: training curves, sweeps of K and the margin, base against novel, gains of classes; each an SVG.

Series differ in marker and dash as well as colour.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pomp_lab.report.page import Figure
from pomp_lab.report.results import Run
from pomp_lab.report.sweeps import Gain, Pair, Sweep
from prompt_core.errors import UserError
from prompt_core.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

ACROSS, MOST_PANELS, SHOWN_CLASSES, MOST_GAINS = 3, 9, 10, 12
COLOURS = ("#0072b2", "#c24f00", "#007a58", "#a0468c", "#8a6d00", "#4d5a64")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (1, 3)))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same numbers give the same text
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d5dade",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    # Names of runs are not formulas.
    "text.parse_math": False,
}


def require_matplotlib() -> None:
    """Check for the optional dependency before any long work.

    Raises:
        UserError: when matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            'the pictures need matplotlib, which is not installed; run: python -m pip install -e ".[demo]"'
        ) from error


def plot_style() -> AbstractContextManager[None]:
    """The style of all plots."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def draw_curves(runs: Sequence[Run], title: str, axis: str) -> Figure:
    """Loss and accuracy of training batches over epochs or iterations; runs of one label look alike."""
    known = {name for run in runs for entry in run.history for name in entry}
    shown = [(name, scale) for name, scale in (("loss", 1.0), ("accuracy", 100.0)) if name in known]
    styles = _styles(run.label for run in runs)
    canvas, panels = _panels(len(shown), height=2.9)
    for panel, (name, scale) in zip(panels, shown, strict=True):
        first = {run.label: run for run in reversed(runs)}
        for run in runs:
            points = [(entry[axis], scale * entry[name]) for entry in run.history if axis in entry and name in entry]
            style = styles[run.label] if len(points) < 30 else {**styles[run.label], "marker": ""}
            label = _plain(run.label, 44) if run is first[run.label] else None
            panel.plot(*zip(*points, strict=True), label=label, **style)
        panel.set_title(f"training {name}" + (", %" if scale > 1 else ""))
        panel.set_xlabel(axis)
        losses = [entry["loss"] for run in runs for entry in run.history]
        if name == "loss" and min(losses) > 0 and max(losses) / min(losses) > 30:
            panel.set_yscale("log")
    caption = (
        f"Over the training batches of each {axis}. Losses of runs that differ in classes, loss function or data are "
        "not on the same scale."
    )
    return _figure(canvas, f"{title}: learning curves", caption)


def draw_sweeps(swept: Sequence[Sweep], setting: str) -> list[Figure]:
    """Accuracy against K or the margin, one panel for each column; no figure where nothing was swept."""
    if not swept:
        return []
    quantity = "K" if setting == "K" else "the margin"
    styles = _styles(label for sweep in swept for label in sweep.lines)
    canvas, panels = _panels(min(len(swept), MOST_PANELS))
    for panel, sweep in zip(panels, swept, strict=False):
        for number, (label, points) in enumerate(sweep.lines.items()):
            shift = 0.08 * (number - (len(sweep.lines) - 1) / 2)
            values, means, spreads = zip(*points, strict=True)
            places = [sweep.values.index(value) + shift for value in values]
            panel.errorbar(places, means, yerr=spreads, capsize=2, label=_plain(label, 44), **styles[label])
        if math.isfinite(sweep.baseline):
            panel.axhline(sweep.baseline, color="#59636b", linewidth=1, linestyle=(0, (2, 2)), label="hand prompt")
        panel.set_xticks(range(len(sweep.values)), [_plain(value, 12) for value in sweep.values])
        panel.set_xlabel({"K": "K, classes in a step"}.get(setting, "margin added to the logits of negatives"))
        panel.set_ylabel(f"{sweep.column.label}, %")
        panel.set_title(_wrapped(sweep.column.dataset, sweep.column.difference))
    caption = (
        f"Runs that differ only in {quantity} and the seed. Whiskers: half the range over seeds; dashed line: the hand "
        "prompt. The horizontal axis is not to scale, and no axis starts at zero."
    )
    return [_figure(canvas, f"Accuracy against {quantity}", caption)]


def draw_pairs(pairs: Sequence[Pair]) -> list[Figure]:
    """Base classes on x, novel classes on y, one point for each row, labelled with the row's number."""
    if not pairs:
        return []
    canvas, panels = _panels(min(len(pairs), MOST_PANELS), height=3.0)
    for panel, pair in zip(panels, pairs, strict=False):
        named: list[tuple[float, float]] = []
        width, height = (max(axis) - min(axis) or 1.0 for axis in zip(*(p[1:] for p in pair.points), strict=True))
        for row, x, y in pair.points:
            style: dict[str, Any] = {"marker": "s", "markerfacecolor": "none"} if row.hand else {"marker": "o"}
            panel.plot([x], [y], linestyle="none", color=COLOURS[row.hand], **style)
            if all(abs(x - a) > 0.09 * width or abs(y - b) > 0.07 * height for a, b in named):
                panel.annotate(str(row.number), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
                named.append((x, y))
        panel.margins(0.12)
        several = pair.base.dataset != pair.novel.dataset
        panel.set_xlabel(pair.base.label + ", base classes" * several)
        panel.set_ylabel(pair.novel.label + ", novel classes" * several)
        shared = [text for text in pair.base.difference.split(", ") if text in pair.novel.difference.split(", ")]
        panel.set_title(_wrapped(pair.base.dataset.replace("base", "base / novel"), ", ".join(shared)))
    caption = (
        "One point per row, numbered as in the tables where there is room. Means over seeds; hollow squares are hand "
        "prompts. Higher is better on classes that were not learned, further right on those that were. No axis starts "
        "at zero."
    )
    return [_figure(canvas, "Base against novel classes", caption)]


def draw_gains(gains: Sequence[Gain]) -> list[Figure]:
    """The classes that gain and lose most against the hand prompt, one figure for each comparison up to a number."""
    figures = [_draw_gain(gain) for gain in gains[:MOST_GAINS]]
    if len(gains) > MOST_GAINS:
        more = f"{figures[-1].caption} {len(gains) - MOST_GAINS} more comparisons are not drawn."
        figures[-1] = dataclasses.replace(figures[-1], caption=more)
    return figures


def _draw_gain(gain: Gain) -> Figure:
    whole = len(gain.classes) <= 2 * SHOWN_CLASSES
    shown = gain.classes if whole else [*gain.classes[:SHOWN_CLASSES], *gain.classes[-SHOWN_CLASSES:]]
    names, values = [_plain(name, 34) for name, _ in shown], [value for _, value in shown]
    canvas, (panel,) = _panels(1, height=0.8 + 0.19 * len(shown), width=6.2)
    panel.barh(range(len(shown)), values, 0.7, color=[COLOURS[value < 0] for value in values])
    panel.set_yticks(range(len(shown)), names)
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")
    metric = gain.metric.replace("_", " ")
    panel.set_xlabel(f"{metric}, gain")
    better, worse = (sum(sign * value > 0 for _, value in gain.classes) for sign in (1, -1))
    mean = sum(value for _, value in gain.classes) / len(gain.classes)
    caption = f"{metric} of each class: {better} of {len(gain.classes)} classes better, {worse} worse, on average "
    caption += f"{mean:+.1f}."
    if not whole:
        caption += f" Drawn: the {SHOWN_CLASSES} that gain most and the {SHOWN_CLASSES} that lose most."
    caption += " A class has few images, so most of these differences are noise."
    return _figure(canvas, f"{gain.row.label} over {gain.baseline.label}, {gain.dataset}", caption)


def _panels(count: int, height: float = 2.6, width: float = 3.3) -> tuple[Canvas, list[Axes]]:
    """A figure of its own canvas, in inches: pyplot's global state is never touched."""
    from matplotlib.figure import Figure as Canvas

    across = min(count, ACROSS)
    down = -(-count // ACROSS)
    canvas = Canvas(figsize=(max(width * across, 5.0), height * down + 0.5), layout="constrained")
    return canvas, [canvas.add_subplot(down, across, place + 1) for place in range(count)]


def _figure(canvas: Canvas, title: str, caption: str) -> Figure:
    stream = io.BytesIO()
    handles, labels = canvas.axes[0].get_legend_handles_labels()
    if 1 < len(labels) <= 14:
        canvas.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8)
    with warnings.catch_warnings():
        # Letters that matplotlib's font lacks are drawn with the reader's.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return Figure(stream.getvalue(), "svg+xml", title, caption)


def _styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker of each label, the same in all panels."""
    from cycler import cycler

    styles = cycler(linestyle=DASHES) * (cycler(color=COLOURS) + cycler(marker=MARKERS))
    return dict(zip(dict.fromkeys(labels), itertools.cycle(styles), strict=False))


def _plain(text: str, most: int) -> str:
    """A name on one line, shortened; without the two signs that no XML may hold."""
    text = re.sub("[\ufffe\uffff]", "\ufffd", visible(" ".join(text.split())))
    # matplotlib leaves labels out that begin with an underscore.
    text = f"\u200b{text}" if text.startswith("_") else text
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _wrapped(dataset: str, difference: str) -> str:
    return "\n".join(line for text in (dataset, difference) for line in textwrap.wrap(_plain(text, 120), 40)[:3])
