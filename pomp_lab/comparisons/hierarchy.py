"""What WordNet's hierarchy is worth: names above a photo's class as negatives or not, words pooled from their kinds.

Learning is that of :mod:`pomp_lab.comparisons.base_to_novel`. With K of 21,843 names a class above the photo's is
seldom drawn, so the same is learned with the exact softmax over fewer names, all that are above the classes among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pomp_lab.comparisons.base_to_novel import BaseToNovel
from pomp_lab.comparisons.general_words import GENERAL_SIZES, classes_below, draw_general_words
from pomp_lab.comparisons.none_of_these import LabelledPhotos
from pomp_lab.comparisons.own_share_table import Plan, photo_sets
from pomp_lab.runs import Document, mean_and_spread, mean_text
from pomp_lab.tables.data_folders import PHOTOS, TINY, WIDE, DataFolders
from pomp_lab.tables.plan import Row, Settings
from prompt_core.background.hypernyms import Hypernyms, imagenet21k_hypernyms
from prompt_core.background.kinds import with_kinds
from prompt_core.classifier import TextClassifier
from prompt_core.clip import Clip
from prompt_core.files import make_output_folder
from prompt_core.hierarchy.pooled_words import best_kind_scores, kinds_of_words, pooled_features
from prompt_core.vocabulary import Vocabulary

TITLE = "Rejecting by WordNet's hierarchy on Tiny-ImageNet"
# Few of Tiny-ImageNet's classes have descendants, so that LOSS.REJECT relatives is the same as ancestors there.
REJECTED = {"name": "name", "ancestors": "name and ancestors"}
COLUMNS = {
    "base": f"{TINY}_base_of_all",
    "novel": f"{TINY}_novel_of_all",
    "photos": f"{PHOTOS}_of_21k",
}
METRICS = {
    "top1": "top-1",
    "right_or_above": "right or above",
    "hierarchical_f1": "hierarchical F",
    "lca_height": "height",
}
TEMPLATES = {"template": "a photo of a {}.", "bare": "{}"}
# Ways to answer with general words.
ALONE, POOLED, BEST, SUM = "the word's own text", "kinds pooled, no template", "best kind (CHiLS)", "sum over kinds"


def rejecting_rows(config: str, sampled: int, shots: int) -> tuple[list[Row], list[str]]:
    """Zero-shot, then both losses with each rule; and the names of the rows with the exact softmax over fewer names."""
    template = (("METHOD.NAME", "zero_shot"), ("METHOD.ZERO_SHOT.TEMPLATE", "a photo of a {}."))
    rows, exact = [Row('"a photo of a {}."', config, settings=template)], []
    for loss, count in ((f"POMP K={sampled}", sampled), ("full softmax, near names", 0)):
        for rule, words in REJECTED.items():
            settings: Settings = (
                ("METHOD.NAME", "pomp"),
                ("LOSS.NUM_CLASSES", str(count)),
                ("LOSS.CORRECTION", "log10" if count else "none"),
                ("LOSS.REJECT", rule),
                ("DATA.SHOTS", str(shots)),
            )
            row = Row(f"{loss}, rejected: {words}", config, TINY, True, settings)
            rows.append(row)
            exact += [] if count else [row.name]
    return rows, exact


def near_names(classes: Sequence[int | str], hierarchy: Hypernyms, count: int, seed: int = 0) -> Vocabulary:
    """Names of ImageNet-21K for an exact softmax: the classes, all above them, and others up to ``count``.

    Args:
        classes: WordNet ids.
    """
    wide = Vocabulary.load(WIDE)
    own = [hierarchy.row[str(identity)] for identity in classes if str(identity) in hierarchy.row]
    chosen = {*own, *hierarchy.above(own)}
    others = (row for row in np.random.default_rng(seed).permutation(len(wide)).tolist() if row not in chosen)
    more = [row for row, _ in zip(others, range(count - len(chosen)), strict=False)]
    return wide[sorted([*chosen, *more])]


def measure_rejecting(
    comparison: BaseToNovel,
    sampled: int,
    shots: int,
    near: int,
    seeds: Sequence[int],
    general: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[str], dict[str, Document]]:
    """Learn and score what is missing: names of the rows and their numbers.

    Args:
        near: number of names of the exact softmax.
        general: rows of :func:`general_accuracy`, which the results file keeps beside the runs.
    """
    rows, exact = rejecting_rows(comparison.config_name, sampled, shots)
    folders = DataFolders(Path(), {TINY: comparison.tiny_imagenet})
    file = make_output_folder(comparison.output / "lists") / f"near_names_{near}.json"
    near_names(folders.images(TINY, "val").ids, imagenet21k_hypernyms(), near).save(file)
    about = {"title": TITLE, "near_names": near, "general_words": [dict(row) for row in general]}
    documents, _ = comparison.measured(rows, seeds, about, dict.fromkeys(exact, file))
    return [row.name for row in rows], documents


def rejecting_cells(rows: Sequence[str], documents: Mapping[str, Document]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: mean over the seeds ± half the range."""
    cells = []
    for row in rows:
        runs = [document for document in documents.values() if document["_run"]["row"] == row]
        numbers = [[run[f"{column}/{metric}"] for run in runs] for column in COLUMNS.values() for metric in METRICS]
        heights = len(METRICS) - 1
        cells.append(
            [row, str(len(runs))]
            + [
                f"{np.mean(values):.2f}" if place % len(METRICS) == heights else mean_text(values)
                for place, values in enumerate(numbers)
            ]
        )
    return ["prompt", "runs", *(f"{part}, {word}" for part in COLUMNS for word in METRICS.values())], cells


def general_accuracy(
    photos: LabelledPhotos,
    below: Mapping[str, frozenset[int]],
    names: Vocabulary,
    encode: Callable[[Vocabulary], Tensor],
    features: Mapping[str, Tensor],
    scale: float,
    seeds: Sequence[int],
    draws: int,
) -> list[dict[str, Any]]:
    """Top-1 of drawn general words on the photos whose class is below one of them: a row for each way and size.

    Args:
        below: see :func:`pomp_lab.comparisons.general_words.classes_below`.
        names: that may be kinds.
        encode: features (N, E) of words in the template.
        features: of ``names``, (B, E), in the ``template`` and ``bare``.
        scale: logit scale of probabilities.
    """
    right: dict[tuple[int, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for size in GENERAL_SIZES:
        for seed in seeds:
            for draw in range(draws):
                drawn = draw_general_words(dict(below), size, np.random.default_rng([seed, size, draw]))
                if len(drawn) < 2:
                    continue
                place = {label: number for number, word in enumerate(drawn) for label in below[word]}
                targets = torch.tensor([place.get(label, -1) for label in photos.labels.tolist()])
                inside = targets >= 0
                words = Vocabulary(drawn, source="drawn words")
                weight, images = encode(words), photos.features[inside]
                rows, word = kinds_of_words(words, weight, names, features["template"])
                logits, of_kinds = scale * images @ weight.T, scale * images @ features["template"][rows].T
                answers = {
                    ALONE: logits,
                    POOLED: images @ pooled_features(weight, features["bare"][rows], word).T,
                    BEST: best_kind_scores(logits, of_kinds, word),
                    SUM: with_kinds(logits, of_kinds, word),
                }
                for way, scores in answers.items():
                    share = (scores.argmax(dim=1) == targets[inside]).double().mean()
                    right[size, way][seed].append(100 * float(share))
    table = []
    for (size, way), of_seeds in right.items():
        means = [float(np.mean(values)) for values in of_seeds.values()]
        mean, half_range = mean_and_spread(means)
        table.append(
            {
                "photos": photos.name,
                "words": size,
                "answer": way,
                "top1": mean,
                "half_range": half_range,
                "seeds": means,
            }
        )
    return table


def general_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells."""
    cells = [[row["photos"], str(row["words"]), row["answer"], mean_text(row["seeds"])] for row in rows]
    return ["photos", "general words", "answered by", "top-1 %"], cells


def general_words(
    clip: Clip, folders: DataFolders, seeds: Sequence[int], draws: int, cache: Path
) -> list[dict[str, Any]]:
    """Rows of :func:`general_accuracy` for all photos, the half called ``report``; the scale is the CLIP's own."""
    names, hierarchy = Vocabulary.load("imagenet21k"), imagenet21k_hypernyms()
    features = {key: TextClassifier.build(clip, names, text).weight for key, text in TEMPLATES.items()}
    subject, rows = [TEMPLATES["template"]], []
    for photos in photo_sets(clip, subject, Plan(folders, (), seeds, draws, cache), "report"):

        def encode(words: Vocabulary) -> Tensor:
            return TextClassifier.build(clip, words, subject).weight

        below = classes_below(photos.ids, names.names, hierarchy)
        rows += general_accuracy(photos, below, names, encode, features, clip.logit_scale, seeds, draws)
    return rows
