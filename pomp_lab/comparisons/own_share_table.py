"""The table of own shares: a logit scale chosen on one half of the photos, numbers on the other, what it costs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.benchmarks.harness import machine_description, spread, timed
from pomp_lab.comparisons.general_words import METRICS, classes_below, general_rows, spread_of
from pomp_lab.comparisons.none_of_these import (
    BLIND,
    COSINE,
    OWN,
    SOFTMAX,
    Judge,
    LabelledPhotos,
    Reliability,
    answers_by_scale,
    chosen_scale,
    cosine_threshold,
    measured,
)
from pomp_lab.tables.data_folders import HALVES, PHOTOS, TINY, WIDE, DataFolders, photo_half
from prompt_core.background.hypernyms import imagenet21k_hypernyms
from prompt_core.background.photo_words import THRESHOLD
from prompt_core.classifier import TextClassifier
from prompt_core.clip import Clip
from prompt_core.data.images import ImageSet
from prompt_core.evaluation.evaluate import load_test_set
from prompt_core.prompt import SoftPrompt
from prompt_core.vocabulary import Vocabulary

Subject = SoftPrompt | Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        sizes: numbers of words.
        seeds: of the draws of words.
        draws: for each seed and number of words.
        cache: folder of image features and class matrices.
    """

    folders: DataFolders
    sizes: Sequence[int]
    seeds: Sequence[int]
    draws: int
    cache: Path


def own_share_table(clip: Clip, subject: Subject, plan: Plan) -> dict[str, Any]:
    """Scale, thresholds, rows, reliability and cost, as JSON.

    The scale and the cosine threshold come from the half called ``tune`` of the photos of ImageNet's classes, all
    else from the halves called ``report``; draws of words are others too.

    Raises:
        UserError: when photos are missing, or none is answered.
    """
    wide = Vocabulary.load(WIDE)
    names, seconds = timed(partial(TextClassifier.build, clip, wide, subject))
    judge = Judge(wide, names.weight, names.metadata, clip.logit_scale)
    tuning = next(photo_sets(clip, subject, plan, HALVES[0]))
    draws = {size: tuning.draws(size, max(plan.seeds) + 1, plan.draws) for size in plan.sizes}
    answers = {size: answers_by_scale(judge, tuning, of_size, THRESHOLD) for size, of_size in draws.items() if of_size}
    scale = chosen_scale(answers.values())
    thresholds = {OWN: THRESHOLD, BLIND: THRESHOLD, SOFTMAX: THRESHOLD}
    thresholds[COSINE] = _equal_cosine(judge, tuning, [rows for of_size in draws.values() for rows in of_size], scale)
    report = list(photo_sets(clip, subject, plan, HALVES[1]))
    rows, curves = _rows(judge, report, plan, scale, thresholds)
    return {
        "scale": {"chosen": scale, "model": clip.logit_scale, "answers": answers, "half": HALVES[0]},
        "thresholds": thresholds,
        "sets": {photos.name: {"photos": len(photos.labels), "classes": len(photos.classes)} for photos in report},
        "rows": rows,
        "general_words": _general(clip, subject, judge, plan, report, scale),
        "reliability": {
            name: {way: {"error": curve.error, "bins": curve.rows()} for way, curve in ways.items()}
            for name, ways in curves.items()
        },
        "cost": {"seconds_to_encode_names": seconds, **cost(clip, subject, plan, report[0])},
    }


def photo_sets(clip: Clip, subject: Subject, plan: Plan, half: str) -> Iterator[LabelledPhotos]:
    """Photos of ImageNet's 1,000 classes and, where the plan has a place for it, Tiny-ImageNet."""
    for name in (PHOTOS, TINY):
        if name == TINY and name not in plan.folders.places:
            continue
        images = photo_half(plan.folders.images(name, "val"), half)
        test_set = load_test_set(clip, images, "", plan.cache)
        features = F.normalize(torch.from_numpy(test_set.features), dim=1)
        classes = Vocabulary(test_set.candidates.names)
        labels = torch.from_numpy(test_set.labels)
        weight, ids = TextClassifier.build(clip, classes, subject).weight, test_set.candidates.ids
        yield LabelledPhotos(name, features, labels, classes, weight, tuple(ids or ()))


def _equal_cosine(judge: Judge, photos: LabelledPhotos, draws: Sequence[np.ndarray], scale: float) -> float:
    """The cosine that answers as many photos of the words as an own share above :data:`THRESHOLD` does."""
    cosines, answered = [], []
    for rows in draws:
        scores, inside = judge.scores(photos, rows, scale), photos.targets(rows) >= 0
        cosines.append(scores[COSINE].amax(dim=1)[inside])
        answered.append(scores[OWN].amax(dim=1)[inside] > THRESHOLD)
    return cosine_threshold(torch.cat(cosines), float(torch.cat(answered).float().mean()))


def _rows(
    judge: Judge, report: Sequence[LabelledPhotos], plan: Plan, scale: float, thresholds: Mapping[str, float]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Reliability]]]:
    """One row for each data set, number of words and way to score, and reliability over all numbers of words."""
    numbers: dict[tuple[str, int, str], list[dict[str, float]]] = defaultdict(list)
    curves: dict[str, dict[str, Reliability]] = {photos.name: {} for photos in report}
    for photos in report:
        for seed in plan.seeds:
            for size, tallies, of_size in measured(judge, photos, plan.sizes, seed, plan.draws, scale, thresholds):
                for way, tally in tallies.items():
                    numbers[photos.name, size, way].append(tally.percent() | {"right": tally.right})
                for way, curve in of_size.items():
                    curves[photos.name].setdefault(way, Reliability()).merge(curve)
    rows = []
    for (name, size, way), seeds in sorted(numbers.items(), key=lambda item: item[0][:2]):
        about: dict[str, Any] = {"photos": name, "words": size, "score": way, **spread_of(seeds)}
        rows.append(about | {"right": [seed["right"] for seed in seeds]})
    return rows, curves


def _general(
    clip: Clip, subject: Subject, judge: Judge, plan: Plan, report: Sequence[LabelledPhotos], scale: float
) -> list[dict[str, Any]]:
    """Rows of general words, where the photos' classes have WordNet ids."""
    rows = []
    names = Vocabulary.load("imagenet21k").names
    for photos in report:
        below = classes_below(photos.ids, names, imagenet21k_hypernyms())

        def encode(words: Vocabulary) -> Tensor:
            return TextClassifier.build(clip, words, subject).weight

        about = (photos.name, photos.features, photos.labels, below)
        rows += general_rows(judge, *about, encode, scale, THRESHOLD, plan.seeds, plan.draws)
    return rows


def table_rows(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the written table: mean over the seeds ± half the range, in percent."""
    general = [{**row, "words": f"{row['words']} general"} for row in document["general_words"]]
    cells = [
        [row["photos"], str(row["words"]), row["score"]]
        + [f"{row[metric]['mean']:.1f} ± {row[metric]['half_range']:.1f}" for metric in METRICS]
        for row in [*document["rows"], *general]
    ]
    return ["photos", "words", "score", *METRICS], cells


def cost(clip: Clip, subject: Subject, plan: Plan, photos: LabelledPhotos, repeats: int = 30) -> dict[str, Any]:
    """Milliseconds for one photo: opening and encoding it, and its own shares among the fewest words.

    In turns, so that a slow phase of the machine affects all of them. ``percent`` is the median of own shares to the
    median of the photo.
    """
    images: ImageSet = plan.folders.images(PHOTOS, "val")
    words = [photos.classes.names[row] for row in photos.draws(min(plan.sizes), 0, 1)[0]]

    def build() -> TextClassifier:
        return TextClassifier.build(clip, words, subject, background=WIDE, cache=plan.cache)

    (built, first), (_, again) = timed(build), timed(build)
    taken: dict[str, list[float]] = defaultdict(list)
    for turn in range(repeats + 2):
        features, photo = timed(partial(_encode, clip, images, turn % len(images)))
        _, plain = timed(partial(built.logits, features, clip.logit_scale))
        _, share = timed(partial(built.own_share, features))
        if turn >= 2:  # the first ones are slower
            for name, seconds in (("photo", photo), ("cosines", plain), ("own_share", share)):
                taken[name].append(1000 * seconds)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "milliseconds": {name: spread(values) for name, values in taken.items()},
        "percent": 100 * middle["own_share"] / middle["photo"],
        "words": len(words),
        "background": len(built.background or ()),
        "seconds_to_build": {"first": first, "again": again},
        "threads": torch.get_num_threads(),
        **machine_description(),
    }


def _encode(clip: Clip, images: ImageSet, number: int) -> Tensor:
    return clip.encode_image(clip.preprocess(images.read(number)).unsqueeze(0))
