"""Zero-shot accuracy of image features under a text classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.ranks.balance import runs
from prompt_core.ranks.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Accuracy:
    """Fractions in [0, 1].

    Attributes:
        top1: share of images whose nearest class is right (micro: every image counts once).
        top5: share of images with the right class among the five nearest.
        per_class: mean over classes of their own top-1 (macro).
        images: number of images.
        candidates: number of classes to choose from.
        by_class: row of each class that has images, to its own top-1; of classes that count as one, the first row.
        answers: the row of the nearest class to each image; of classes that count as one, the first.
    """

    top1: float
    top5: float
    per_class: float
    images: int
    candidates: int
    by_class: dict[int, float] = field(default_factory=dict)
    answers: Sequence[int] = field(default=(), compare=False, repr=False)


def zero_shot_accuracy(
    image_features: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    class_features: Tensor,
    name_groups: Sequence[int] | np.ndarray | None = None,
    batch: int = 1024,
    ranks: Ranks = ALONE,
    merge: bool = True,
) -> Accuracy:
    """Classify by the nearest class feature; of equally near classes the first comes first, in top-1 and in top-5.

    Args:
        image_features: (n, E) unit-norm.
        labels: (n,) rows of ``class_features``.
        class_features: (N, E) unit-norm.
        name_groups: (N,) group of each class. Classes of one group share their name, hence their feature, and no
            classifier on names can distinguish them: the first one's score is that of all.
        batch: images that are scored at once.
        ranks: the processes of a job. All call with the same arguments and score some of the batches each; the answers
            are gathered, so that the result is that of one process.
        merge: classes of one group count as one class; otherwise a tie goes to the first of them, as in the published
            evaluation.

    Raises:
        UserError: when there are no images or a label has no class.
    """
    count, classes = len(labels), len(class_features)
    if count == 0:
        raise UserError("there are no images to score")
    targets = torch.as_tensor(np.asarray(labels), dtype=torch.long)
    if int(targets.min()) < 0 or int(targets.max()) >= classes:
        raise UserError(f"labels {int(targets.min())}..{int(targets.max())} for {classes} candidate classes")
    first = torch.arange(classes)
    copies: Tensor | None = None
    if name_groups is not None:
        groups = torch.as_tensor(np.asarray(name_groups))
        # One feature per group is enough: the first member's.
        order = torch.unique(groups, return_inverse=True)[1]
        first = torch.full((int(order.max()) + 1,), classes, dtype=torch.long)
        first.scatter_reduce_(0, order, torch.arange(classes), reduce="amin")
        class_features = class_features[first]
        if merge:
            targets = order[targets]
        else:
            # Scored once: columns of one product that hold the same feature may round differently.
            first, copies = torch.arange(classes), order
    nearest, five_hits = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.bool)]
    own = runs(count, ranks.size, batch)[ranks.rank]
    for start in range(own.start, own.stop, batch):
        rows = torch.as_tensor(np.asarray(image_features[start : start + batch], dtype=np.float32))
        scores = rows.to(class_features) @ class_features.T  # (batch, N)
        scores = scores if copies is None else scores[:, copies]
        nearest.append(scores.argmax(dim=1).cpu())
        five_hits.append(_among_five(scores, targets[start : start + batch].to(scores.device)).cpu())
    of_all = ranks.everyone((torch.cat(nearest), torch.cat(five_hits)))
    answers, in_five = (torch.cat(parts) for parts in zip(*of_all, strict=True))
    right = answers == targets
    by_class = {
        int(first[target]): float(right[targets == target].float().mean()) for target in torch.unique(targets).tolist()
    }
    return Accuracy(
        float(right.float().mean()),
        float(in_five.float().mean()),
        float(np.mean(list(by_class.values()))),
        count,
        len(first),
        by_class,
        first[answers].tolist(),
    )


def _among_five(scores: Tensor, targets: Tensor) -> Tensor:
    """(n,) whether the class of each image is among the five nearest; topk itself breaks ties in no order."""
    own = scores.gather(1, targets[:, None])  # (n, 1)
    fifth = scores.topk(min(5, scores.shape[1]), dim=1).values[:, -1:]
    among = (own > fifth)[:, 0]
    for row in (own == fifth)[:, 0].nonzero()[:, 0].tolist():
        before = (scores[row] > own[row]).sum() + (scores[row, : targets[row]] == own[row]).sum()
        among[row] = before < 5
    return among


def pooled_accuracy(scores: Sequence[Accuracy]) -> Accuracy:
    """Accuracies of single images among the same candidates, combined into one.

    Raises:
        UserError: when there are none.
    """
    if not scores:
        raise UserError("there are no images to score")
    of_class: dict[int, list[float]] = {}
    for score in scores:
        for row, value in score.by_class.items():
            of_class.setdefault(row, []).append(value)
    by_class = {row: float(np.mean(values)) for row, values in sorted(of_class.items())}
    return Accuracy(
        float(np.mean([score.top1 for score in scores])),
        float(np.mean([score.top5 for score in scores])),
        float(np.mean(list(by_class.values()))),
        len(scores),
        scores[0].candidates,
        by_class,
        [answer for score in scores for answer in score.answers],
    )


def harmonic_mean(first: float, second: float) -> float:
    """2ab / (a + b); 0 when one of them is 0, NaN when one is."""
    if np.isnan(first) or np.isnan(second):
        return float("nan")
    return 2 * first * second / (first + second) if first and second else 0.0


def alignment(image_features: Tensor, class_features: Tensor) -> Tensor:
    """Mean squared distance of images to the feature of their own class.

    Args:
        image_features: (B, E) unit-norm.
        class_features: (B, E) unit-norm, the feature of each image's class.

    Returns:
        scalar; between 0 and 4.
    """
    return (image_features - class_features).square().sum(dim=-1).mean()


def uniformity(class_features: Tensor, temperature: float = 2.0, chunk_size: int = 2048) -> Tensor:
    """Log of the mean over unordered pairs of classes of ``exp(-temperature * squared distance)``.

    Args:
        class_features: (N, E) unit-norm, N >= 2.
        chunk_size: rows per pass; memory is chunk_size x N.

    Returns:
        scalar; 0 when all classes coincide.

    Raises:
        UserError: for fewer than two classes.
    """
    count = len(class_features)
    if count < 2:
        raise UserError(f"uniformity compares pairs of classes, given {count} class; give at least 2")
    total = class_features.new_zeros((), dtype=torch.float64)
    for start in range(0, count, chunk_size):
        rows = class_features[start : start + chunk_size]
        squared = (2 - 2 * rows @ class_features[start:].T).clamp(min=0)  # (n, N - start), pairs from the diagonal on
        total = total + torch.exp(-temperature * squared).triu(1).sum(dtype=torch.float64)
    return torch.log(total / (count * (count - 1) / 2)).to(class_features.dtype)
