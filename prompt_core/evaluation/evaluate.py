"""Scoring prompts and templates on image sets: features once, then one accuracy per classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prompt_core.classifier import TextClassifier
from prompt_core.data.feature_cache import ImageTower, cached_features
from prompt_core.data.images import ImageSet
from prompt_core.data.splits import HALVES, WORDS
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json
from prompt_core.metrics import Accuracy, harmonic_mean, zero_shot_accuracy
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.training.data import training_vocabulary
from prompt_core.vocabulary import Vocabulary

BOTH = ["base", "new"]


@dataclass(frozen=True)
class TestSet:
    """An image set with its features, and the candidates it is scored among.

    Attributes:
        features: (n, E) unit-norm.
        labels: (n,) rows of ``candidates``.
        unreadable: keys of the images that could not be decoded.
        images_sha256: hash of the image set.
    """

    __test__ = False  # the name is not pytest's

    features: np.ndarray
    labels: np.ndarray
    candidates: Vocabulary
    unreadable: list[str]
    images_sha256: str
    source: str


def load_test_set(
    clip: ImageTower,
    images: ImageSet,
    vocabulary: str,
    cache: str | Path,
    progress: Callable[[int, int], None] | None = None,
) -> TestSet:
    """Encode or find the features of ``images``; candidates are their own classes, or a wider vocabulary.

    Args:
        clip: the frozen model, or the tower of a method (:mod:`prompt_core.methods.image_towers`).
    """
    cached = cached_features(clip, images, 0, None, 0, cache, progress=progress)
    candidates, rows = training_vocabulary(images, vocabulary)
    return TestSet(
        np.asarray(cached.features[:, 0], dtype=np.float32),
        rows[cached.labels],
        candidates,
        cached.unreadable,
        images.fingerprint(),
        images.source,
    )


def score(
    encoder: PromptedTextEncoder,
    test_set: TestSet,
    prompt_or_templates: SoftPrompt | str | Sequence[str],
    merge_namesakes: bool = True,
) -> Accuracy:
    """Accuracy of a prompt or of templates on a test set."""
    candidates = test_set.candidates
    classifier = TextClassifier.build(encoder.clip, candidates, prompt_or_templates, encoder=encoder)
    groups = candidates.name_groups if merge_namesakes else None
    return zero_shot_accuracy(test_set.features, test_set.labels, classifier.weight, groups)


def class_rows(accuracy: Accuracy, test_set: TestSet) -> list[dict[str, Any]]:
    """Top-1 in percent of each class that has images, for ``per_class.json``."""
    names, ids = test_set.candidates.names, test_set.candidates.ids
    return [
        {"id": row if ids is None else ids[row], "name": names[row], "top1": 100 * value}
        for row, value in sorted(accuracy.by_class.items())
    ]


def class_parts(text: str) -> list[str]:
    """``all``, ``base``, ``new``, or the two halves: which classes' images are scored (``EVAL.CLASSES``).

    Raises:
        UserError: another word.
    """
    parts = [part.strip() for part in text.split(",")]
    if not (len(parts) == 1 and parts[0] in HALVES) and sorted(parts) != BOTH:
        raise UserError(f"EVAL.CLASSES is {text!r}; expected {', '.join(HALVES)} or base,new")
    return sorted(parts)


def part_name(dataset: str, part: str) -> str:
    """What results call a half of a data set's classes, or all of them."""
    return dataset if part == "all" else f"{dataset}_{WORDS[part]}"


def base_novel_mean(
    metrics: Mapping[str, float], protocol: Mapping[str, Mapping[str, Any]], dataset: str
) -> tuple[float, dict[str, Any]]:
    """Harmonic mean of top-1 of base and of novel classes (CoCoOp, arXiv 2203.05557, table 1).

    Returns:
        the mean in percent, and its ``_protocol`` entry.
    """
    names = [part_name(dataset, part) for part in BOTH]
    mean = harmonic_mean(*(metrics[f"{name}/top1"] for name in names))
    shared = {key: value for key, value in protocol[names[0]].items() if protocol[names[1]].get(key) == value}
    images = sum(protocol[name]["images"] for name in names)
    return mean, {**shared, "metric": "harmonic mean of top-1 of base and of novel classes", "images": images}


def protocol_of(test_set: TestSet, split: str, merge_namesakes: bool, part: str = "all") -> dict[str, Any]:
    """The ``_protocol`` entry of a test set.

    Args:
        part: of the classes, see :func:`class_parts`.
    """
    from prompt_core import __version__

    half = {} if part == "all" else {"images_of": f"{WORDS[part]} classes"}
    return {
        "split": split,
        **half,
        "metric": "top-1 over all images (micro)",
        "candidates": len(test_set.candidates),
        "namesakes": "merged" if merge_namesakes else "separate",
        "images": len(test_set.labels),
        "unreadable": test_set.unreadable,
        "scorer": f"prompt_core {__version__}",
        "images_sha256": test_set.images_sha256,
        "annotation_sha256": sha256_of_json(test_set.labels.tolist()),
        "vocabulary_sha256": test_set.candidates.sha256,
        "source": test_set.source,
    }
