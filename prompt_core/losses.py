"""Local contrast and local correction (POMP, arXiv 2304.04704, section 3; upstream ``trainers/pomp.py``); the anchor.

The loss of an image is computed over its own class and K - 1 sampled ones. Sampling makes the task easier than the full
softmax; the correction adds a margin to the sampled logits. The paper writes it with a natural logarithm, the published
code computes it with base 10, and the published ablation agrees with the code.

The anchor (dynamic outlier regularization, arXiv 2410.02681) is a term that looks at no image: names that are not
learned on, drawn anew in each step, should keep the text features that they had before.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.hierarchy.class_lists import ClassLists

Correction = str | float | None


def correction_margin(num_classes: int, num_sampled: int, correction: Correction = "log10") -> float:
    """Margin that is added to sampled logits when none of them is rejected.

    ``log((N - 1) / M)`` for M = K - 1 sampled classes out of N: the log of how many classes each sampled one stands
    for.

    Args:
        correction: ``log10`` (published code), ``ln`` (unbiased estimate of the full softmax's sum), a number, or None.

    Raises:
        UserError: an unknown correction, fewer than two classes or no sampled class.
    """
    if num_classes < 2 or num_sampled < 1:
        raise UserError(f"a margin needs 2 classes and 1 sampled one at least, given {num_classes} and {num_sampled}")
    return float(_margins(torch.tensor(float(num_classes - 1)), torch.tensor(float(num_sampled)), correction))


def local_contrast_logits(
    image_features: Tensor,
    positive_features: Tensor,
    negative_features: Tensor,
    labels: Tensor,
    negative_ids: Tensor,
    num_classes: int,
    logit_scale: float | Tensor,
    correction: Correction = "log10",
    name_groups: Tensor | None = None,
    log_inclusion: Tensor | None = None,
    not_negatives: ClassLists | None = None,
) -> Tensor:
    """Logits of each image against its own class and the shared sampled classes; the target is column 0.

    Args:
        image_features: (B, E) unit-norm.
        positive_features: (B, E) class features of each image's own class.
        negative_features: (M, E) class features of the sampled classes, M = K - 1.
        labels: (B,) class ids.
        negative_ids: (M,) class ids of the sampled classes.
        num_classes: N, the size of the vocabulary that was sampled from.
        logit_scale: multiplies the cosine.
        correction: ``log10``, ``ln``, a margin, or None; see :func:`correction_margin`. For each image it is the log of
            the classes that may be negatives over the sampled ones that are: ``log((N - g) / (M - r))`` with g classes
            rejected for this image, r of them sampled (g = 1 without ``name_groups`` and ``not_negatives``).
        name_groups: (N,) group of each class; sampled classes of the image's own group are rejected, since they
            share its name and would be false negatives. Without it only the image's own class is.
        log_inclusion: (M,) natural log of each sampled class's probability to be in the sample, for samplers that
            are not uniform; its negative replaces the common margin.
        not_negatives: instead of ``name_groups``, the classes that are rejected for the images of each class, itself
            among them (:func:`prompt_core.hierarchy.not_negatives.not_negatives`).

    Returns:
        (B, 1 + M); rejected entries are -inf.

    Raises:
        UserError: an unknown correction, or tensors that do not match ``negative_ids`` or ``num_classes``.
    """
    if len(negative_features) != len(negative_ids):
        raise UserError(f"{len(negative_features)} negative features for {len(negative_ids)} negative ids")
    if log_inclusion is not None and len(log_inclusion) != len(negative_ids):
        raise UserError(f"{len(log_inclusion)} inclusion probabilities for {len(negative_ids)} negative ids")
    if name_groups is not None and len(name_groups) != num_classes:
        raise UserError(f"{len(name_groups)} name groups for {num_classes} classes")
    if not_negatives is not None and len(not_negatives) != num_classes:
        raise UserError(f"{len(not_negatives)} lists of classes that are no negatives for {num_classes} classes")
    positive = (image_features * positive_features).sum(dim=-1, keepdim=True)  # (B, 1)
    negative = image_features @ negative_features.T  # (B, M)
    positive, negative = logit_scale * positive, logit_scale * negative
    if not_negatives is not None:
        rejected = not_negatives.mask(labels)[:, negative_ids]  # (B, M)
        group_size = not_negatives.counts(labels).float()
    elif name_groups is None:
        rejected = negative_ids[None] == labels[:, None]  # (B, M)
        group_size = torch.ones(len(labels), device=labels.device)
    else:
        rejected = name_groups[negative_ids][None] == name_groups[labels][:, None]
        # Not by bincount, which makes the host wait for a GPU.
        group_size = (name_groups[None] == name_groups[labels][:, None]).sum(dim=1).float()
    if correction is not None:
        if log_inclusion is None:
            sampled = (len(negative_ids) - rejected.sum(dim=1)).clamp(min=1)
            margin = _margins((num_classes - group_size).clamp(min=1), sampled, correction)[:, None]  # (B, 1)
            negative = negative + margin.to(negative)
        elif isinstance(correction, str):
            negative = negative - log_inclusion[None].to(negative) * _base(correction)
        else:
            negative = negative + float(correction)
    return torch.cat([positive, negative.masked_fill(rejected, float("-inf"))], dim=1)


def full_softmax_logits(
    image_features: Tensor,
    class_features: Tensor,
    labels: Tensor,
    logit_scale: float | Tensor,
    name_groups: Tensor | None = None,
    not_negatives: ClassLists | None = None,
    columns: Tensor | None = None,
) -> Tensor:
    """Logits (B, N) against all classes; the target is the label.

    With ``name_groups`` (N,) namesakes are rejected, with ``not_negatives`` the classes in the label's list. With
    ``columns`` (n,) the class features are those of these classes alone, and so are the logits (B, n).
    """
    logits = logit_scale * image_features @ class_features.T  # (B, N)
    if not_negatives is None and name_groups is None:
        return logits
    if not_negatives is not None:
        rejected = not_negatives.mask(labels)
    elif name_groups is not None:
        rejected = name_groups[None] == name_groups[labels][:, None]
    rejected = rejected.scatter_(1, labels[:, None], False)
    return logits.masked_fill(rejected if columns is None else rejected[:, columns], float("-inf"))


def anchor_distance(class_features: Tensor, untuned_features: Tensor) -> Tensor:
    """How far names have moved from their untuned text: the mean of 1 - cosine, from 0 to 2.

    Args:
        class_features: (n, E) under what is learned, unit-norm.
        untuned_features: (n, E) of the same names under a hand-written template, unit-norm; it gets no gradient.

    Returns:
        A scalar, differentiable in ``class_features``. On unit vectors it is half the mean squared distance. Source:
        the regularisation term of arXiv 2410.02681, section 4, with its weight left out.

    Raises:
        UserError: no names, or other names on each side.
    """
    if class_features.dim() != 2 or class_features.shape != untuned_features.shape or not len(class_features):
        raise UserError(
            f"an anchor needs the features (n, E) of the same names twice, given {tuple(class_features.shape)} and "
            f"{tuple(untuned_features.shape)}"
        )
    return 1 - (class_features * untuned_features.detach()).sum(dim=-1).mean()


def _base(correction: str) -> float:
    if correction not in ("log10", "ln"):
        raise UserError(f"unknown correction {correction!r}; expected log10, ln, a number or None")
    return 1 / math.log(10) if correction == "log10" else 1.0


def _margins(classes: Tensor, sampled: Tensor, correction: Correction) -> Tensor:
    if correction is None:
        return torch.zeros_like(classes)
    if not isinstance(correction, str):
        return torch.full_like(classes, float(correction))
    _base(correction)
    log = torch.log10 if correction == "log10" else torch.log
    return log(classes) - log(sampled)
