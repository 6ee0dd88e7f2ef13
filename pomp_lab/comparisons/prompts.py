"""Comparing prompts from base to novel classes: one training set, many ways to make class features, one table.

Base classes have training images, novel ones have none. Features of all names of a wide vocabulary are encoded once
per prompt; each column of the table (a test set among some of the names) then only chooses rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from prompt_core.classifier import TextClassifier
from prompt_core.data.images import ImageSet
from prompt_core.evaluation.evaluate import TestSet, score_classes
from prompt_core.metrics import alignment, uniformity
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.vocabulary import Vocabulary


def base_novel_classes(count: int, novel: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sorted labels of base and novel classes: the first ``novel`` of ``default_rng(seed).permutation(count)``."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[novel:]), np.sort(order[:novel])


def halves_by_key(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Two halves of an image set by the parity of the sha256 of the file name: even to tune on, odd to report."""
    import hashlib

    parity = np.array([hashlib.sha256(key.rsplit("/", 1)[-1].encode()).digest()[-1] & 1 for key in images.keys])
    return images.subset(np.flatnonzero(parity == 0)), images.subset(np.flatnonzero(parity == 1))


def class_features(
    encoder: PromptedTextEncoder, vocabulary: Vocabulary, subject: SoftPrompt | str | Sequence[str]
) -> Tensor:
    """(N, E) features of a vocabulary behind a prompt or in templates."""
    return TextClassifier.build(encoder.clip, vocabulary, subject, encoder=encoder).weight


def evaluate_columns(features: Tensor, columns: Mapping[str, TestSet]) -> dict[str, float]:
    """Top-1 in percent of each column, given features (N, E) of the wide vocabulary; namesakes count as one class."""
    return {
        name: 100 * score_classes(column, features[torch.from_numpy(column.rows)]).top1
        for name, column in columns.items()
    }


def geometry(features: Tensor, column: TestSet) -> dict[str, float]:
    """Alignment of a column's images with their classes, and uniformity of its candidates."""
    candidates = features[torch.from_numpy(column.rows)]
    images = torch.from_numpy(np.asarray(column.features, dtype=np.float32))
    return {
        "alignment": float(alignment(images, candidates[torch.from_numpy(column.labels)])),
        "uniformity": float(uniformity(candidates)),
    }
