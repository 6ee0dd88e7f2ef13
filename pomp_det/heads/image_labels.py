"""Losses of images that come with labels and without boxes: which proposal represents a label?

Pure functions (Detic, arXiv 2201.02605, section 4.2, and its published code).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.towers.placement import upload

Choice = Callable[[Tensor, Tensor, Tensor], Tensor]


def _largest(losses: Tensor, scores: Tensor, areas: Tensor) -> Tensor:
    return areas.argmax().expand(losses.shape[1])


def _highest_score(losses: Tensor, scores: Tensor, areas: Tensor) -> Tensor:
    return scores.argmax(dim=0)


def _first(losses: Tensor, scores: Tensor, areas: Tensor) -> Tensor:
    return torch.zeros(losses.shape[1], dtype=torch.long, device=losses.device)


def _smallest_loss(losses: Tensor, scores: Tensor, areas: Tensor) -> Tensor:
    return losses.argmin(dim=0)


def _last(losses: Tensor, scores: Tensor, areas: Tensor) -> Tensor:
    return torch.full((losses.shape[1],), len(losses) - 1, device=losses.device)


# Each takes losses and scores (P, L) of P proposals for L labels and areas (P,), and gives a proposal per label (L,).
CHOICES: dict[str, Choice] = {
    "max_size": _largest,  # the largest box
    "max_score": _highest_score,  # the box that scores highest for the label
    "first": _first,  # the box of the highest objectness: proposals come by falling score
    "min_loss": _smallest_loss,  # the box with the smallest loss for the label
    "image": _last,  # the appended whole-image box
}


@dataclass(frozen=True)
class ImageLabelOptions:
    """Options of the loss of image labels.

    Attributes:
        kind: a key of :data:`CHOICES`.
        weight: of the loss.
        skip_last: see :func:`image_label_loss`, as ``softmax``.
    """

    kind: str = "max_size"
    weight: float = 0.1
    skip_last: bool = True
    softmax: bool = False


def image_label_loss(
    logits: Sequence[Tensor],
    areas: Sequence[Tensor],
    labels: Sequence[Sequence[int]],
    kind: str = "max_size",
    skip_last: bool = True,
    softmax: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Mean over images of the mean over labels of the chosen proposal's loss.

    The loss of a proposal for a label is the binary cross-entropy against this one label, summed over all columns:
    the background and the image's other labels count as negatives, as published.

    Args:
        logits: (P_i, C + 1) of each image's proposals, by falling objectness.
        areas: (P_i,) of their boxes.
        labels: class ids of each image. An image without labels or proposals counts as 0.
        kind: a key of :data:`CHOICES`.
        skip_last: ``max_size`` never takes the last proposal unless it is the only one. Published code does so always;
            it is meant for an appended whole-image box, and drops a real proposal where none is appended.
        softmax: the loss of a proposal is the cross-entropy of the softmax over all columns instead.

    Returns:
        The loss, and for each image the proposal (L_i,) chosen for each label, on the device of the logits.
    """
    total = torch.stack([image_logits.sum() * 0 for image_logits in logits]).sum()
    chosen: list[Tensor] = []
    for image_logits, image_areas, image_labels in zip(logits, areas, labels, strict=True):
        ids = upload(torch.tensor(list(image_labels), dtype=torch.long), image_logits.device)
        if len(image_logits) == 0 or len(ids) == 0:
            chosen.append(ids[:0])
            continue
        scores = image_logits[:, ids]  # (P, L)
        evidence = image_logits.logsumexp(dim=1) if softmax else F.softplus(image_logits).sum(dim=1)  # (P,)
        losses = evidence[:, None] - scores  # (P, L)
        usable = slice(-1) if kind == "max_size" and skip_last and len(image_areas) > 1 else slice(None)
        picked = CHOICES[kind](losses[usable].detach(), scores[usable].detach(), image_areas[usable])
        chosen.append(picked)
        total = total + losses.gather(0, picked[None]).mean()
    return total / len(logits), chosen
