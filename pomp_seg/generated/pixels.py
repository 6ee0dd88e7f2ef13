"""Pixels that are learned from: some of each class, and those of unseen classes that a classifier is most sure of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_features(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (B, H, W) at the size (h, w) of feature maps, each the nearest one."""
    return F.interpolate(labels[:, None].float(), size=size, mode="nearest")[:, 0].long()


def some_of_each(labels: Tensor, count: int, ignored: int) -> Tensor:
    """Places of at most ``count`` pixels of each class, drawn by torch's global generator.

    Args:
        labels: (P,); pixels with the value ``ignored`` have no class.
    """
    places = []
    for label in labels.unique().tolist():
        if label != ignored:
            of_label = torch.nonzero(labels == label)[:, 0]
            places.append(of_label[torch.randperm(len(of_label), device=labels.device)[:count]])
    return torch.cat(places) if places else labels.new_zeros(0)


def surest_unseen(logits: Tensor, unseen: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Pseudo labels of self-training (ZS5, arXiv 1906.00817, section 3): places of pixels, and their classes.

    Of the pixels whose best class is an unseen one, for each such class the ``share`` with the highest probability.

    Args:
        logits: (P, C) of pixels without a label.
        unseen: (C,) booleans.
        share: in 0..1; of each class that occurs at least one pixel.
    """
    probability, answers = logits.detach().softmax(dim=1).max(dim=1)
    places = []
    for label in answers.unique().tolist():
        if unseen[label]:
            of_label = torch.nonzero(answers == label)[:, 0]
            number = max(1, int(share * len(of_label)))
            places.append(of_label[probability[of_label].topk(number).indices])
    chosen = torch.cat(places) if places else answers.new_zeros(0)
    return chosen, answers[chosen]
