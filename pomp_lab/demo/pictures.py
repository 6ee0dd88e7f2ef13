"""Drawings of the demo, as PNG: images with answers, the learning curve, bars of base and novel classes.

Right and wrong are told apart by sign, word and line style, not by colour alone; the colours are those of Okabe and
Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pomp_lab.demo.scores import Column, Example, PromptRow

BLUE, ORANGE, GREY, SKY, GREEN, INK = "#0072B2", "#D55E00", "#8C8C8C", "#56B4E9", "#009E73", "#222222"
RIGHT, WRONG = "✓", "✗"
HATCHES = ("", "//", "..", "xx", "")
FILLS = ("#D9D9D9", "#BDBDBD", SKY, "#A6DCCB", BLUE)


def draw_examples(path: str | Path, examples: Sequence[Example], subtitle: str) -> None:
    """A grid of validation images: the true name, and the answers of the hand-written and the learned prompt."""
    from PIL import Image

    across = min(6, len(examples))
    down = -(-len(examples) // across)
    figure = _figure(2.25 * across, 2.75 * down + 0.8)
    figure.suptitle(
        f"Drawn at random; {subtitle}. Hand: “a photo of a {{}}.”; learned: the learned prompt.\n"
        f"{RIGHT} right, solid frame: the learned prompt is right; {WRONG} wrong, dashed frame: it is not.",
        fontsize=9,
    )
    for place, example in enumerate(examples):
        axes = figure.add_subplot(down, across, place + 1)
        axes.imshow(Image.open(example.file).convert("RGB"))
        axes.set_xticks([])
        axes.set_yticks([])
        right = example.after == example.name
        for edge in axes.spines.values():
            edge.set(color=BLUE if right else ORANGE, linewidth=3, linestyle="-" if right else (0, (3, 2)))
        axes.set_title(f"{example.name}\n({example.group})", fontsize=8.5, fontweight="bold")
        lines = [f"{RIGHT if said == example.name else WRONG} {who}: {said}" for who, said in _answers(example)]
        axes.set_xlabel("\n".join(lines), fontsize=7.5, loc="left")
    _save(figure, path)


def draw_learning(path: str | Path, history: Sequence[Mapping[str, float]]) -> None:
    """Loss and accuracy on the training batches, one point per epoch."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(8, 3)
    epochs = range(1, len(history) + 1)
    for place, (key, label, scale, colour, marker) in enumerate(
        (("loss", "loss (nats)", 1, BLUE, "o"), ("accuracy", "right among the sampled names, %", 100, ORANGE, "s"))
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.plot(epochs, [scale * entry[key] for entry in history], color=colour, marker=marker, markersize=4)
        axes.set_xlabel("epoch")
        axes.set_title(f"training: {label}", fontsize=10, loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    _save(figure, path)


def draw_accuracy(
    path: str | Path, columns: Sequence[Column], rows: Sequence[PromptRow], metrics: Mapping[str, float]
) -> None:
    """Top-1 of each prompt, bars side by side for each protocol, one panel for base and one for novel images."""
    figure = _figure(9, 3.8)
    bars = [("chance", "chance"), *((row.key, row.label) for row in rows)]
    panels = [[column for column in columns if column.group == group] for group in ("base", "novel")]
    most = max(metrics[f"{column.key}/top1_{key}"] for column in columns for key, _ in bars)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(1, 2, number + 1)
        for position, (key, label) in enumerate(bars):
            places = [place + 0.16 * (position - 2) for place in range(len(panel))]
            heights = [metrics[f"{column.key}/top1_{key}"] for column in panel]
            drawn = axes.bar(
                places,
                heights,
                0.16,
                label=label,
                color=FILLS[position],
                hatch=HATCHES[position],
                edgecolor=INK,
                linewidth=0.6,
            )
            axes.bar_label(drawn, [f"{height:.1f}" for height in heights], fontsize=6.5, padding=1)
        axes.set_xticks(range(len(panel)), [f"among\n{column.among}" for column in panel], fontsize=8)
        axes.set_ylim(0, 1.12 * most)
        axes.set_title(f"{panel[0].group} images: top-1, %", fontsize=10, loc="left")
        _plain(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    _save(figure, path)


def _answers(example: Example) -> list[tuple[str, str]]:
    return [("hand", example.before), ("learned", example.after)]


def _figure(width: float, height: float) -> Figure:
    """A figure of its own canvas, in inches: pyplot's global state is never touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        # Without a date and a version, the same numbers give the same bytes.
        figure.savefig(temporary, format="png", dpi=144, metadata={"Software": None})
