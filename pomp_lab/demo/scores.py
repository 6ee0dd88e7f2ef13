"""Scores of the demo: each prompt on base and novel classes of the shapes, among few and many names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pomp_lab.shapes.facts import class_rows
from pomp_lab.shapes.options import ShapesOptions
from prompt_core.data.catalog.hand_written import imagenet_templates
from prompt_core.data.sources import open_images
from prompt_core.evaluation.evaluate import TestSet, load_test_set, predict, score_classes
from prompt_core.prompt import SoftPrompt

if TYPE_CHECKING:
    from prompt_core.clip import Clip

BASELINE = "photo"
ATTRIBUTES = ("colour", "pattern", "shape")


@dataclass(frozen=True)
class PromptRow:
    """One line of the table: a short key for metrics, a label for people, and the prompt or the templates."""

    key: str
    label: str
    subject: SoftPrompt | Sequence[str]


@dataclass(frozen=True)
class Column:
    """One protocol: images of base or novel classes, among a set of candidate names.

    Attributes:
        key: the data set's name in ``metrics.json``.
        group: ``base`` or ``novel``: whose images.
        among: what the candidates are, for people.
        test_set: images and candidates; its ``rows`` are those of the whole vocabulary.
        files: the image files.
    """

    key: str
    group: str
    among: str
    test_set: TestSet
    files: list[Path]

    @property
    def labels(self) -> np.ndarray:
        """(n,) rows of the whole vocabulary: what each image shows."""
        return self.test_set.wide_labels


@dataclass(frozen=True)
class Example:
    """A validation image and the answers of two prompts among all names."""

    file: Path
    group: str
    name: str
    before: str
    after: str


def hand_prompts() -> list[PromptRow]:
    """The hand-written prompts: the bare name, CLIP's default sentence, and the 80 templates of CLIP for ImageNet."""
    ensemble = imagenet_templates()
    return [
        PromptRow("name", '"{}"', ["{}"]),
        PromptRow("photo", '"a photo of a {}."', ["a photo of a {}."]),
        PromptRow("ensemble", f"{len(ensemble)} hand-written templates", ensemble),
    ]


def load_columns(
    clip: Clip, shapes: Path, cache: str | Path, progress: Callable[[int, int], None] | None = None
) -> list[Column]:
    """Encode the validation images once; score base and novel ones among their own, the pictured and all names."""
    images = open_images(f"folder:{shapes / 'classification'}", "val")
    everything = load_test_set(clip, images, str(shapes / "class_names.txt"), cache, progress)
    readable = [key for key in images.keys if key not in set(everything.unreadable)]
    files = [images.root / key for key in readable]
    novel = np.array([row["split"] == "novel" for row in class_rows(shapes)])
    pictured = np.unique(everything.labels)
    columns = []
    for among in ("own", "pictured", "all"):
        for group in ("base", "novel"):
            mine = np.flatnonzero(novel[everything.labels] == (group == "novel"))
            group_rows = pictured[novel[pictured] == (group == "novel")]
            rows = {"own": group_rows, "pictured": pictured, "all": np.arange(len(everything.candidates))}[among]
            text = {"own": f"the {len(rows)} {group} names", "pictured": f"the {len(rows)} pictured names"}
            columns.append(
                Column(
                    f"shapes_{group}_of_{among}",
                    group,
                    text.get(among, f"all {len(rows):,} names"),
                    everything.among(rows, mine),
                    [files[index] for index in mine],
                )
            )
    return columns


def score_columns(columns: Sequence[Column], weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Top-1 and top-5 in percent of each classifier (N, E) in each column, chance, and the learned prompt's gain.

    ``top1_gain`` is the learned prompt's top-1 minus that of :data:`BASELINE`, ``top1_gain_margin`` half of its 95 %
    interval over images (normal approximation of the paired difference).
    """
    metrics: dict[str, float] = {}
    for column in columns:
        for key, weight in weights.items():
            accuracy = score_classes(column.test_set, weight[torch.from_numpy(column.test_set.rows)])
            metrics[f"{column.key}/top1_{key}"] = 100 * accuracy.top1
            metrics[f"{column.key}/top5_{key}"] = 100 * accuracy.top5
        for top in (1, 5):
            candidates = len(column.test_set.candidates)
            metrics[f"{column.key}/top{top}_chance"] = 100 * min(top, candidates) / candidates
        if {"learned", BASELINE} <= set(weights):
            right = [predictions(column, weights[key]) == column.labels for key in ("learned", BASELINE)]
            gain = 100 * (right[0].astype(float) - right[1])
            metrics[f"{column.key}/top1_gain"] = float(gain.mean())
            metrics[f"{column.key}/top1_gain_margin"] = float(1.96 * gain.std() / np.sqrt(len(gain)))
    return metrics


def predictions(column: Column, weight: Tensor) -> np.ndarray:
    """(n,) rows of the whole vocabulary: the nearest candidate of each image."""
    rows = column.test_set.rows
    return rows[predict(column.test_set, weight[torch.from_numpy(rows)])]


def attribute_shares(columns: Sequence[Column], weights: Mapping[str, Tensor], shapes: Path) -> dict[str, float]:
    """How often colour, pattern and shape of the answer are right, in percent, in the columns with all names."""
    classes = class_rows(shapes)
    metrics = {}
    for column in _widest(columns):
        labels = column.labels
        for attribute in ATTRIBUTES:
            values = np.array([row[attribute] for row in classes])
            # A random answer is right as often as two names agree in this attribute.
            metrics[f"{column.key}/{attribute}_chance"] = 100 * float(
                np.mean([np.mean(values == values[label]) for label in labels])
            )
            for key, weight in weights.items():
                right = values[predictions(column, weight)] == values[labels]
                metrics[f"{column.key}/{attribute}_{key}"] = 100 * float(right.mean())
    return metrics


def _widest(columns: Sequence[Column]) -> list[Column]:
    return list(columns[-2:])


def chosen_examples(
    columns: Sequence[Column], weights: Mapping[str, Tensor], before: str, after: str, count: int = 12
) -> list[Example]:
    """``count`` images each of base and novel classes, drawn at random whatever the answers; one per class."""
    examples = []
    for column in _widest(columns):
        rng = np.random.default_rng(0)
        names = column.test_set.candidates.names
        labels = column.labels
        answers = [predictions(column, weights[key]) for key in (before, after)]
        order = rng.permutation(len(labels))
        _, first = np.unique(labels[order], return_index=True)
        for index in order[np.sort(first)[:count]]:
            answer_names = [names[int(answer[index])] for answer in answers]
            examples.append(Example(column.files[index], column.group, names[int(labels[index])], *answer_names))
    return examples


def protocols(columns: Sequence[Column], shapes: ShapesOptions) -> dict[str, Any]:
    """The ``_protocol`` object."""
    return {
        column.key: {
            **column.test_set.protocol("val", True),
            "images_of": f"{column.group} classes",
            "candidate_names": column.among,
            "shapes_seed": shapes.seed,
        }
        for column in columns
    }
