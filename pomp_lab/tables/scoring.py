"""Scoring one method on one target: class features once for all of its columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pomp_lab.tables.scored_sets import Question, Target
from prompt_core.data.feature_cache import cached_features
from prompt_core.evaluation.evaluate import TestSet, class_features, image_features, merges_namesakes, score
from prompt_core.hierarchy.hierarchical_accuracy import in_wordnet
from prompt_core.methods.base import Method
from prompt_core.methods.image_towers import image_tower
from prompt_core.metrics import alignment, uniformity
from prompt_core.vocabulary import Vocabulary, plain_name

Progress = Callable[[int, int], None]


@dataclass
class Scores:
    """Numbers of a method on a target.

    Attributes:
        numbers: ``"dataset/metric"`` → value; percent, except alignment and uniformity.
        protocol: data set → protocol of its numbers.
        skipped: data set → why there is no number.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    protocol: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def score_target(
    method: Method,
    target: Target,
    merge_namesakes: bool,
    cache: str | Path,
    most_texts: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score all columns that the method can answer.

    Args:
        merge_namesakes: classes of one name count as one.
        cache: folder of image features.
        most_texts: columns of more texts are left out, where class features differ from image to image.
    """
    scores = Scores()
    method = method.for_data_set(target.source)
    tower = image_tower(method)
    cached = cached_features(tower, target.images, 0, None, 0, cache, progress=progress)
    everything = TestSet.from_cache(cached, target.images, target.names, target.rows, target.source)
    known: Tensor | None = None
    for question in target.questions:
        test_set = everything.among(question.candidates, target.counts(question, cached.labels))
        bound = method.bound_names is not None
        # Such a method identifies classes by the names of its training images.
        asked = _with_own_names(target, question, test_set) if bound else test_set
        if reason := _refusal(method, asked, most_texts):
            scores.skipped[question.dataset] = reason
            continue
        classes = None
        if not (method.conditional or bound):
            known = _wide_features(method, target) if known is None else known
            classes = known[torch.from_numpy(question.candidates)]
        accuracy = score(method, asked, merge_namesakes, classes)
        if question.geometry and classes is not None:
            images = image_features(method, test_set).cpu()
            true_classes = classes[torch.from_numpy(test_set.labels)]
            scores.numbers[f"{question.dataset}/alignment"] = float(alignment(images, true_classes))
            if len(classes) > 1:
                scores.numbers[f"{question.dataset}/uniformity"] = float(uniformity(classes))
        for metric in ("top1", "top5", "per_class"):
            scores.numbers[f"{question.dataset}/{metric}"] = 100 * getattr(accuracy, metric)
        merged = merges_namesakes(method, merge_namesakes)
        wrong = in_wordnet(accuracy.answers, test_set.labels, test_set.candidates, merged)
        scores.numbers |= {f"{question.dataset}/{metric}": value for metric, value in wrong.items()}
        scores.protocol[question.dataset] = _protocol(method, target, question, test_set, merge_namesakes)
    return scores


def _wide_features(method: Method, target: Target) -> Tensor:
    """(N, E) features of the target's names, of which columns choose rows; unused rows stay 0."""
    asked = np.unique(np.concatenate([question.candidates for question in target.questions]))
    features = class_features(method, target.names[asked])
    wide = torch.zeros(len(target.names), features.shape[1])
    wide[torch.from_numpy(asked)] = features
    return wide


def _with_own_names(target: Target, question: Question, test_set: TestSet) -> TestSet:
    """The same with the images' own names for classes that have images; a wide vocabulary may differ."""
    image_names = {int(row): name for row, name in zip(target.rows, target.images.names, strict=True)}
    names = [image_names.get(int(row), target.names[int(row)]) for row in question.candidates]
    return dataclasses.replace(test_set, candidates=Vocabulary(names, source=test_set.candidates.source))


def _refusal(method: Method, test_set: TestSet, most_texts: int | None) -> str | None:
    """Why a method has no number in a column."""
    names, count = test_set.candidates.names, len(test_set.candidates)
    if method.bound_names is not None:
        learned = set(map(plain_name, method.bound_names))
        unknown = sum(plain_name(name) not in learned for name in names)
        if unknown:
            return f"it knows the {len(method.bound_names):,} classes it learned, {unknown:,} of {count:,} are others"
    texts = len(test_set.labels) * count
    if method.conditional and most_texts is not None and texts > most_texts:
        return f"class features of each image would be {texts:,} texts"
    return None


def _protocol(
    method: Method, target: Target, question: Question, test_set: TestSet, merge_namesakes: bool
) -> dict[str, Any]:
    protocol = test_set.protocol(target.split, merges_namesakes(method, merge_namesakes))
    if len(np.unique(test_set.candidates.name_groups)) == len(test_set.candidates):
        protocol["namesakes"] = "none"
    # Folders are not part of the protocol, the division into splits is.
    division = [word for word in ("published", "official", "generated") if f"{word} split" in target.images.source]
    return {
        **protocol,
        "source": ", ".join([target.source, *(f"{word} split" for word in division)]),
        **question.protocol,
    }
