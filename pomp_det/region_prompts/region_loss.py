"""DetPro's loss on regions of classes and of the background (Du et al., arXiv 2203.14940, sections 3.3 and 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """(C + 1,) inverse frequencies, so that each class counts alike, as in the published ``prompt/run.py``.

    With R regions, of which n are of a class, that class weighs ``R / (n C)``, and the background ``R / (2 n)``.

    Args:
        labels: (R,) of all regions that are learned on, C the background.
    """
    counts = torch.bincount(labels, minlength=num_classes + 1).clamp(min=1).double()
    weights = len(labels) / counts
    weights[:-1] /= num_classes
    weights[-1] /= 2
    return weights


def region_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of regions of a class; regions of none shall be as much of one class as of any other.

    ``- sum_i w(y_i) log p_i(y_i) - sum_j w(background) 1/C sum_c log p_j(c)``, divided by the sum of all weights.

    Args:
        logits: (B, C) scaled cosines.
        labels: (B,) in 0..C, C the background.
        weights: (C + 1,) see :func:`class_weights`; None for 1.
    """
    num_classes = logits.shape[1]
    log_p = F.log_softmax(logits, dim=1)
    foreground = labels < num_classes
    own = log_p.gather(1, labels.clamp(max=num_classes - 1)[:, None])[:, 0]  # (B,)
    each = -torch.where(foreground, own, log_p.mean(dim=1))
    if weights is None:
        return each.mean()
    weight = weights.to(logits)[labels]
    return (weight * each).sum() / weight.sum()
