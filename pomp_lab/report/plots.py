"""Drawings of a report: curves, sweeps, base against novel, gains of classes; each an ``<svg>`` with a caption.

Series are told apart by marker and dash besides colour. The numbers of each drawing stand in a table or a file too.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pomp_lab.report.formats import Run
from pomp_lab.report.svg import DASHES, GRID, INK, MARKERS, PAPER, SERIES, SOFT, STYLE, as_svg
from pomp_lab.report.sweeps import Gain, Pair, Sweep

ACROSS, MOST_PANELS, SHOWN_CLASSES = 3, 9, 10


@dataclass(frozen=True)
class Plot:
    """A drawing.

    Attributes:
        section: ``curves``, ``sweeps``, ``scatter`` or ``classes``.
        key: for links, unique in a report.
        caption: what is drawn and what must be known to read it.
    """

    section: str
    key: str
    title: str
    svg: str
    caption: str


def draw_curves(runs: Sequence[Run], key: str, title: str, axis: str) -> Plot:
    """Loss and accuracy of training batches over epochs or iterations; runs of one label look alike."""
    from matplotlib.ticker import FuncFormatter

    panels = [("loss", 1.0), ("accuracy", 100.0)]
    panels = [(name, scale) for name, scale in panels if any(name in entry for run in runs for entry in run.history)]
    labels = list(dict.fromkeys(run.label for run in runs))
    tips: dict[str, str] = {}
    with _panels(len(panels), height=2.9) as (figure, axes):
        for place, (panel, (name, scale)) in enumerate(zip(axes, panels, strict=True)):
            for number, run in enumerate(runs):
                points = [
                    (entry[axis], scale * entry[name]) for entry in run.history if axis in entry and name in entry
                ]
                if not points:
                    continue
                style = _style(labels.index(run.label), markers=len(points) < 30)
                label = run.label if run is next(each for each in runs if each.label == run.label) else None
                line = panel.plot(*zip(*points, strict=True), label=_short(label), **style)[0]
                line.set_gid(f"tip-{place}-{number}")
                tips[f"tip-{place}-{number}"] = f"{run.name}: {name} ends at {points[-1][1]:.3g}"
            panel.set_title(f"training {name}" + (", %" if scale > 1 else ""))
            panel.set_xlabel(axis)
            if name == "loss" and _wide([line.get_ydata() for line in panel.lines]):
                panel.set_yscale("log")
                for which in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
                    which(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else ""))
        _legend(figure, axes[0], len(labels))
        caption = (
            f"Over the training batches of each {axis}. Losses of runs with other numbers of classes, other losses or "
            "other data are not on one scale."
        )
        return Plot("curves", key, title, as_svg(figure, key, f"{title}: learning curves", caption, tips), caption)


def draw_sweeps(found: Sequence[Sweep], key: str, setting: str) -> Plot:
    """Accuracy against K or the margin, one panel for each column."""
    name = {"K": "K, classes in a step", "correction": "margin added to the logits of negatives"}[setting]
    labels = list(dict.fromkeys(line.label for sweep in found for line in sweep.lines))
    tips: dict[str, str] = {}
    with _panels(min(len(found), MOST_PANELS)) as (figure, axes):
        for place, (panel, sweep) in enumerate(zip(axes, found, strict=False)):
            for number, line in enumerate(sweep.lines):
                order = labels.index(line.label)
                shift = 0.08 * (number - (len(sweep.lines) - 1) / 2)
                spots = [sweep.values.index(value) + shift for value, _, _ in line.points]
                means, spreads = [mean for _, mean, _ in line.points], [spread for _, _, spread in line.points]
                panel.errorbar(spots, means, yerr=spreads, capsize=2, label=_short(line.label), **_style(order))
                for point, (spot, (value, mean, spread)) in enumerate(zip(spots, line.points, strict=True)):
                    tip = f"tip-{place}-{number}-{point}"
                    _hover(panel, spot, mean, tip)
                    tips[tip] = f"{line.label}; {setting} {value}: {mean:.1f} ± {spread:.1f}"
            if math.isfinite(sweep.baseline):
                panel.axhline(sweep.baseline, color=SOFT, linewidth=1, linestyle=(0, (2, 2)), label="hand prompt")
            panel.set_xticks(range(len(sweep.values)), sweep.values)
            panel.set_xlim(-0.4, len(sweep.values) - 0.6)
            panel.set_xlabel(name)
            panel.set_title(_panel_title(sweep.column.dataset, sweep.column.words))
            if place % ACROSS == 0 or sweep.column.label != found[place - 1].column.label:
                panel.set_ylabel(f"{sweep.column.label}, %")
        _legend(figure, axes[0], len(labels) + 1)
        title = "Accuracy against K" if setting == "K" else "Accuracy against the margin"
        caption = (
            f"Runs that differ in {'K' if setting == 'K' else 'the margin'} and the seed alone; whiskers are half the "
            "range over seeds, the dashed line is the hand prompt. Steps of the axis are not to scale, and no axis "
            "begins at zero."
        )
        return Plot("sweeps", key, title, as_svg(figure, key, title, caption, tips), caption)


def draw_pairs(pairs: Sequence[Pair], key: str) -> Plot:
    """Base classes across, novel classes up, one point for each row, called by the row's number."""
    tips: dict[str, str] = {}
    with _panels(min(len(pairs), MOST_PANELS), height=3.0) as (figure, axes):
        for place, (panel, pair) in enumerate(zip(axes, pairs, strict=False)):
            for number, (row, x, y) in enumerate(pair.points):
                tip = f"tip-{place}-{number}"
                style = {"marker": "s", "markerfacecolor": PAPER} if row.hand else {"marker": "o"}
                colour = SERIES[1] if row.hand else SERIES[0]
                panel.plot([x], [y], linestyle="none", color=colour, markersize=6, gid=tip, **style)
                tips[tip] = f"{row.number}: {row.label} – base {x:.1f}, novel {y:.1f}"
            panel.margins(0.12)
            for (row, x, y), free in zip(pair.points, _apart([(x, y) for _, x, y in pair.points]), strict=True):
                if free:
                    place_of_text = {"xytext": (4, 4), "textcoords": "offset points"}
                    panel.annotate(str(row.number), (x, y), fontsize=7, color=SOFT, **place_of_text)
            panel.set_xlabel(_axis_name(pair.base.dataset, pair.base.label, pair.novel.dataset))
            panel.set_ylabel(_axis_name(pair.novel.dataset, pair.novel.label, pair.base.dataset))
            panel.set_title(_panel_title(_shared(pair.base.dataset, pair.novel.dataset), _words(pair)))
        title = "Base against novel classes"
        caption = (
            "One point for each row, by its number in the tables where there is room; resting the pointer on a point "
            "tells its name. Means over seeds; hollow squares are hand prompts. Up is better on classes "
            "that were not learned from, right on those that were. No axis begins at zero."
        )
        return Plot("scatter", key, title, as_svg(figure, key, title, caption, tips), caption)


def draw_gain(gain: Gain, key: str, left_out: int = 0) -> Plot:
    """The classes that gain and lose most against the hand prompt.

    Args:
        left_out: rows that are not drawn after this one.
    """
    few = gain.classes if len(gain.classes) <= 2 * SHOWN_CLASSES else None
    shown = few or [*gain.classes[:SHOWN_CLASSES], *gain.classes[-SHOWN_CLASSES:]]
    better, worse = (sum(sign * value > 0 for _, value, _ in gain.classes) for sign in (1, -1))
    mean = sum(value for _, value, _ in gain.classes) / len(gain.classes)
    tips = {}
    metric = gain.metric.replace("_", " ")
    with _panels(1, height=0.8 + 0.19 * len(shown), width=6.2) as (figure, axes):
        panel = axes[0]
        for place, (name, value, own) in enumerate(shown):
            bar = panel.barh(place, value, 0.7, color=SERIES[0] if value >= 0 else SERIES[1])[0]
            bar.set_gid(f"tip-{place}")
            tips[f"tip-{place}"] = f"{name}: {value:+.1f}, to {own:.1f}"
        panel.set_yticks(range(len(shown)), [_short(name, 34) for name, _, _ in shown], fontsize=8)
        panel.invert_yaxis()
        panel.axvline(0, color=SOFT, linewidth=1)
        panel.grid(axis="x", color=GRID, linewidth=0.6)
        panel.grid(visible=False, axis="y")
        panel.set_xlabel(f"{metric}, gain")
        title = f"{gain.row.label} over {gain.baseline.label}, {gain.dataset}"
        some = "" if few else f" Drawn are the {SHOWN_CLASSES} that gain most and the {SHOWN_CLASSES} that lose most."
        caption = (
            f"{metric} of each class: {better} of {len(gain.classes)} classes better, {worse} worse, on average "
            f"{mean:+.1f}.{some} Single classes have few images: most such differences are noise."
        )
        caption += f" {left_out} more comparisons are not drawn." if left_out else ""
        return Plot("classes", key, title, as_svg(figure, key, title, caption, tips), caption)


@contextmanager
def _panels(count: int, height: float = 2.6, width: float = 3.3) -> Iterator[tuple[Any, list[Any]]]:
    """A figure of panels, in inches; the style holds until it is written."""
    import matplotlib
    from matplotlib.figure import Figure

    across = min(count, ACROSS)
    down = -(-count // ACROSS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(width * across, 5.0), height * down + 0.5), layout="constrained")
        axes = []
        for place in range(count):
            panel = figure.add_subplot(down, across, place + 1)
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(axis="y", color=GRID, linewidth=0.6)
            panel.set_axisbelow(True)
            axes.append(panel)
        yield figure, axes


def _style(order: int, markers: bool = True) -> dict[str, Any]:
    look = {"color": SERIES[order % len(SERIES)], "linestyle": DASHES[order // len(SERIES) % len(DASHES)]}
    if markers:
        look |= {"marker": MARKERS[order % len(MARKERS)], "markersize": 4}
    return {**look, "linewidth": 1.4}


def _hover(panel: Any, x: float, y: float, gid: str) -> None:
    """An invisible disc around a point, large enough for a pointer."""
    panel.plot([x], [y], linestyle="none", marker="o", markersize=12, color=INK, alpha=0, gid=gid)


def _legend(figure: Any, panel: Any, count: int) -> None:
    handles, labels = panel.get_legend_handles_labels()
    if 1 < len(labels) <= 14:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, count), fontsize=8)


def _short(text: str | None, most: int = 44) -> str | None:
    # matplotlib leaves labels out that begin with an underscore.
    if text is None or len(text) <= most:
        return None if text is None else ("\u200b" + text if text.startswith("_") else text)
    return text[: most - 1].lstrip("_") + "…"


def _panel_title(dataset: str, words: str) -> str:
    return "\n".join(line for text in (dataset, words) for line in textwrap.wrap(text, 36)[:3])


def _words(pair: Pair) -> str:
    """What is special in the protocol of a pair; the numbers of candidates are those of two columns."""
    phrases = [phrase for phrase in pair.base.words.split(", ") if phrase in pair.novel.words.split(", ")]
    return ", ".join(phrases)


def _apart(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether a number beside a point has room: no labelled point is near, in shares of the panel."""
    spans = [max(max(each) - min(each), 1e-9) for each in zip(*points, strict=True)]
    kept: list[tuple[float, float]] = []
    free = []
    for x, y in points:
        near = any(abs(x - a) / spans[0] < 0.09 and abs(y - b) / spans[1] < 0.07 for a, b in kept)
        free.append(not near)
        if not near:
            kept.append((x, y))
    return free


def _axis_name(dataset: str, metric: str, other: str) -> str:
    if dataset == other:
        return metric
    part = "base" if "base" in dataset else "novel"
    return f"{metric}, {part} classes"


def _shared(base: str, novel: str) -> str:
    return base if base == novel else base.replace("base", "base / novel")


def _wide(series: Sequence[Any]) -> bool:
    values = [float(value) for line in series for value in line]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 30
