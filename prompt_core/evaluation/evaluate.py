"""The scorer of photos: a test set with its features, class features of a method, one accuracy.

A soft prompt and hand-written templates are methods as well (``SoftPromptMethod``, ``TemplateMethod``), so everything
that makes class features is scored here, in one way.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prompt_core.data.sources import data_set_name
from prompt_core.data.splits import half_of
from prompt_core.evaluation.protocol import base_novel_mean, selection_text
from prompt_core.evaluation.scored_images import Progress, TestSet, load_test_set
from prompt_core.hierarchy.hierarchical_accuracy import in_wordnet
from prompt_core.methods.image_towers import image_tower
from prompt_core.metrics import Accuracy, pooled_accuracy, zero_shot_accuracy
from prompt_core.ranks.balance import runs
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.ranks.shared_classes import class_shares, own_class_features
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from prompt_core.data.images import ImageSet
    from prompt_core.methods.base import Method


def class_features(method: Method, vocabulary: Vocabulary, ranks: Ranks = ALONE) -> Tensor:
    """(N, E) features of a vocabulary, on the CPU, for methods whose features do not depend on the image.

    The processes of a job encode a share each, unless the method has to see that the names are those it is bound to.
    """
    ranks = ALONE if method.bound_names is not None else ranks
    shares = class_shares(method, vocabulary, None, ranks)
    with torch.no_grad():
        return ranks.gather_rows(own_class_features(method, vocabulary, None, shares, None, ranks), shares).cpu()


def image_features(method: Method, test_set: TestSet) -> Tensor:
    """(n, E) image features of a test set on the method's device; where it reads photos, they are its own tower's."""
    features = torch.from_numpy(test_set.features).to(method.device)
    with torch.no_grad():
        return features if method.reads == "images" else method.image_features(features)


def merges_namesakes(method: Method, merge: bool) -> bool:
    """Classes of one name count as one, except for methods that distinguish classes by more than their names."""
    return merge and method.bound_names is None


def score(
    method: Method,
    test_set: TestSet,
    merge_namesakes: bool = True,
    classes: Tensor | None = None,
    batch: int = 8,
    ranks: Ranks = ALONE,
) -> Accuracy:
    """Accuracy of a method on a test set.

    Args:
        test_set: its features are those of :func:`prompt_core.methods.image_towers.image_tower`.
        classes: (C, E) class features of the candidates, where they are already known.
        batch: images whose class features are held at once, where they differ from image to image.
        ranks: the processes of a job, which share the images; each gets the accuracy of all.

    Raises:
        UserError: no images, or classes that a bound method does not know.
    """
    merge = merges_namesakes(method, merge_namesakes)
    groups = None if method.bound_names is not None else test_set.candidates.name_groups
    with torch.no_grad():
        images = image_features(method, test_set)
        if not method.conditional:
            classes = class_features(method, test_set.candidates, ranks) if classes is None else classes
            return zero_shot_accuracy(images.cpu(), test_set.labels, classes, groups, ranks=ranks, merge=merge)
        scores = []
        own = runs(len(images), ranks.size, batch)[ranks.rank]
        for start in range(own.start, own.stop, batch):
            part = images[start : min(start + batch, own.stop)]
            of_each = method.class_features(test_set.candidates, None, part).cpu()  # (b, C, E)
            scores += [
                zero_shot_accuracy(image[None], label[None], image_classes, groups, merge=merge)
                for image, label, image_classes in zip(
                    part.cpu(), test_set.labels[start : start + len(part)], of_each, strict=True
                )
            ]
    return pooled_accuracy([score for part in ranks.everyone(scores) for score in part])


def score_classes(test_set: TestSet, classes: Tensor, merge_namesakes: bool = True) -> Accuracy:
    """Accuracy of class features (C, E) of a test set's candidates; those of namesakes are the first one's."""
    groups = test_set.candidates.name_groups
    return zero_shot_accuracy(test_set.features, test_set.labels, classes, groups, merge=merge_namesakes)


def predict(test_set: TestSet, classes: Tensor) -> np.ndarray:
    """(n,) rows of the candidates: the nearest of the class features (C, E) to each image."""
    return (torch.from_numpy(test_set.features) @ classes.T).argmax(dim=1).numpy()


@dataclass(frozen=True)
class Score:
    """Scores of a method on one data set, or on its base or its novel classes.

    Attributes:
        data_set: its name in results.
        part: ``all``, ``base`` or ``novel``: the classes of the images and the candidates.
        protocol: the ``_protocol`` entry.
        classes: top-1 in percent of each class that has images, for ``per_class.json``.
        templates: the method's hand-written templates, if any.
        hierarchical: numbers of :func:`prompt_core.hierarchy.hierarchical_accuracy.in_wordnet`.
    """

    data_set: str
    part: str
    accuracy: Accuracy
    protocol: dict[str, Any]
    classes: list[dict[str, Any]]
    templates: list[str] | None
    hierarchical: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The data set's name, with the suffix ``_base`` or ``_novel`` for a part of its classes."""
        return self.data_set if self.part == "all" else f"{self.data_set}_{self.part}"

    @property
    def percent(self) -> dict[str, float]:
        """``top1``, ``top5`` and ``per_class``."""
        return {metric: 100 * getattr(self.accuracy, metric) for metric in ("top1", "top5", "per_class")}

    @property
    def numbers(self) -> dict[str, float]:
        """For ``metrics.json``: :attr:`percent` and :attr:`hierarchical`."""
        return self.percent | self.hierarchical


def evaluate(
    method: Method,
    image_sets: Mapping[str, ImageSet],
    split: str,
    parts: Sequence[str] = ("all",),
    vocabulary: str = "",
    cache: str | Path = "runs/cache",
    merge_namesakes: bool = True,
    learned_file: str | Path | None = None,
    progress: Callable[[str], AbstractContextManager[Progress | None]] = lambda text: nullcontext(),
    ranks: Ranks = ALONE,
) -> Iterator[Score]:
    """Score a method on each part of each data set.

    Args:
        image_sets: the argument of :func:`prompt_core.data.sources.open_images`, and the images.
        split: split of the images, for the protocol.
        parts: of the classes, see :func:`prompt_core.evaluation.protocol.class_parts`.
        learned_file: file the method was loaded from; it records the images that its epoch was chosen by.
        progress: context manager around encoding, such as :func:`prompt_core.command_line.counting`.
        ranks: the processes of a job, which share the images; each gets the same scores.
    """
    names: set[str] = set()
    for source, part in itertools.product(image_sets, parts):
        images = half_of(image_sets[source], part)
        with progress(f"encoding {source}") as count:
            test_set = load_test_set(image_tower(method), images, vocabulary, cache, count, ranks)
        of_source = method.for_data_set(source)
        merge = merges_namesakes(method, merge_namesakes)
        accuracy = score(of_source, test_set, merge, ranks=ranks)
        protocol = test_set.protocol(split, merge, part)
        if words := selection_text(learned_file, images):
            protocol["selection"] = words
        templates = getattr(of_source, "templates", None)
        rows = class_rows(accuracy, test_set)
        wrong = in_wordnet(accuracy.answers, test_set.labels, test_set.candidates, merge)
        result = Score(data_set_name(source), part, accuracy, protocol, rows, templates, wrong)
        if result.name in names:  # two sources of one name
            result = dataclasses.replace(result, data_set=source)
        names.add(result.name)
        yield result


def metrics_of(scores: Sequence[Score]) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Numbers and ``_protocol`` of ``metrics.json``; base and novel of a data set also give their harmonic mean."""
    metrics: dict[str, float] = {}
    protocol: dict[str, dict[str, Any]] = {}
    for score in scores:
        metrics |= {f"{score.name}/{metric}": value for metric, value in score.numbers.items()}
        protocol[score.name] = score.protocol
        if {f"{score.data_set}_base", f"{score.data_set}_novel"} <= protocol.keys() and score.part != "all":
            name = f"{score.data_set}_base_and_novel"
            metrics[f"{name}/harmonic_mean"], protocol[name] = base_novel_mean(metrics, protocol, score.data_set)
    return metrics, protocol


def class_rows(accuracy: Accuracy, test_set: TestSet) -> list[dict[str, Any]]:
    """Top-1 in percent of each class that has images, for ``per_class.json``."""
    names, ids = test_set.candidates.names, test_set.candidates.ids
    return [
        {"id": row if ids is None else ids[row], "name": names[row], "top1": 100 * value}
        for row, value in sorted(accuracy.by_class.items())
    ]
