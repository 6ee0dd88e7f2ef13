"""Pictures of the demo, as PNG: images with answers, the learning curve, bars of base and novel classes.

Right and wrong differ in sign, word and line style, not in colour alone; the colours are those of Okabe and Ito, which
colour-blind readers can distinguish.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pomp_lab.report.plots import plot_style
from prompt_core.data.open_photo import open_photo
from prompt_core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pomp_lab.demo.scores import Column, Example, PromptRow

BLUE, ORANGE = "#0072B2", "#D55E00"
RIGHT, WRONG = "✓", "✗"
# Of the bars: chance, three hand-written prompts, the learned one.
HATCHES = ("", "//", "..", "xx", "")
FILLS = ("#D9D9D9", "#BDBDBD", "#56B4E9", "#A6DCCB", BLUE)


def draw_examples(path: str | Path, examples: Sequence[Example], subtitle: str) -> None:
    """A grid of validation images: the true name, and the answers of the hand-written and the learned prompt."""

    across = min(6, len(examples))
    down = -(-len(examples) // across)
    with _drawn(path, 2.25 * across, 2.75 * down + 0.8) as figure:
        figure.suptitle(
            f"Drawn at random; {subtitle}. Hand: “a photo of a {{}}.”; learned: the learned prompt.\n"
            f"{RIGHT} right, solid frame: the learned prompt is right; {WRONG} wrong, dashed frame: it is not.",
            fontsize=9,
        )
        for place, example in enumerate(examples):
            axes = figure.add_subplot(down, across, place + 1)
            axes.imshow(open_photo(example.file))
            axes.set(xticks=[], yticks=[])
            right = example.after == example.name
            for edge in axes.spines.values():
                edge.set(visible=True, color=BLUE if right else ORANGE, linewidth=3)
                edge.set_linestyle("-" if right else (0, (3, 2)))
            axes.set_title(f"{example.name}\n({example.group})", fontweight="bold")
            answers = (("hand", example.before), ("learned", example.after))
            lines = [f"{RIGHT if answer == example.name else WRONG} {prompt}: {answer}" for prompt, answer in answers]
            axes.set_xlabel("\n".join(lines), fontsize=7.5, loc="left")


def draw_learning(path: str | Path, history: Sequence[Mapping[str, float]]) -> None:
    """Loss and accuracy on the training batches, one point per epoch."""
    from matplotlib.ticker import MaxNLocator

    with _drawn(path, 8, 3) as figure:
        loss, accuracy = figure.subplots(1, 2)
        epochs = range(1, len(history) + 1)
        loss.plot(epochs, [entry["loss"] for entry in history], color=BLUE, marker="o")
        loss.set_title("training: loss (nats)", fontsize=10, loc="left")
        accuracy.plot(epochs, [100 * entry["accuracy"] for entry in history], color=ORANGE, marker="s")
        accuracy.set_title("training: right among the sampled names, %", fontsize=10, loc="left")
        for axes in (loss, accuracy):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_accuracy(
    path: str | Path, columns: Sequence[Column], rows: Sequence[PromptRow], metrics: Mapping[str, float]
) -> None:
    """Top-1 of each prompt: bars grouped by protocol, one panel for base and one for novel images."""
    bars = [("chance", "chance"), *((row.key, row.label) for row in rows)]
    with _drawn(path, 9, 3.8) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, group in zip(panels, ("base", "novel"), strict=True):
            members = [column for column in columns if column.group == group]
            for position, (key, label) in enumerate(bars):
                places = [place + 0.16 * (position - 2) for place in range(len(members))]
                heights = [metrics[f"{column.key}/top1_{key}"] for column in members]
                style = {"color": FILLS[position], "hatch": HATCHES[position], "edgecolor": "#222222", "linewidth": 0.6}
                drawn = axes.bar(places, heights, 0.16, label=label, **style)
                axes.bar_label(drawn, [f"{height:.1f}" for height in heights], fontsize=6.5, padding=1)
            axes.set_xticks(range(len(members)), [f"among\n{column.among}" for column in members])
            axes.set_title(f"{group} images: top-1, %", fontsize=10, loc="left")
            axes.grid(visible=False, axis="x")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)


@contextmanager
def _drawn(path: str | Path, width: float, height: float) -> Iterator[Figure]:
    """A figure in inches that is written at the end; pyplot's global state is never touched."""
    from matplotlib.figure import Figure

    with plot_style():
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        yield figure
        with atomic_path(path) as temporary:
            # Without a date and a version, the same numbers give the same bytes.
            figure.savefig(temporary, format="png", dpi=144, metadata={"Software": None})
