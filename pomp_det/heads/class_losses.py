"""Box classification losses: which classes take part, binary cross-entropy over them, and the counts of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.files import read_json


def read_class_counts(path: str | Path, num_classes: int) -> tuple[Tensor, list[str]]:
    """Training images (C,) and frequency letters of the classes, in order of their ids.

    Args:
        path: a JSON list of category objects with ``id``, ``image_count`` and, where known, ``frequency``.

    Raises:
        UserError: when the file is absent, has other contents, or another number of classes.
    """
    categories: Any = read_json(path)
    if not isinstance(categories, list) or any(not isinstance(each, dict) for each in categories):
        raise UserError(f"class counts {path}: a JSON list of category objects is expected")
    for category in categories:
        if "id" not in category or "image_count" not in category:
            raise UserError(f"class counts {path}: category {category.get('name', '?')!r} has no id or image_count")
    if len(categories) != num_classes:
        raise UserError(f"class counts {path} are of {len(categories)} classes; the detector has {num_classes}")
    categories = sorted(categories, key=lambda category: category["id"])
    counts = torch.tensor([float(category["image_count"]) for category in categories])
    return counts, [str(category.get("frequency", "")) for category in categories]


def federated_classes(gt_classes: Tensor, weights: Tensor, number: int) -> Tensor:
    """Ids (F,) of the classes of a federated loss (Detic; Zhou et al., arXiv 2102.01066).

    The classes in the batch stay, background included; others are drawn without replacement, with a probability
    proportional to ``weights``, until there are ``number``.

    Args:
        gt_classes: (R,) in 0..C, C the background.
        weights: (C,) of which zeros are never drawn.
    """
    present = gt_classes.unique()
    missing = number - len(present)
    probability = torch.cat((weights.float(), weights.new_zeros(1)))  # (C + 1,)
    probability[present] = 0
    missing = min(missing, int((probability > 0).sum()))
    if missing <= 0:
        return present
    return torch.cat((present, torch.multinomial(probability, missing, replacement=False)))


def without_held_out(logits: Tensor, gt_classes: Tensor, held_out: Tensor) -> Tensor:
    """Logits (R, C + 1) for a softmax loss that held-out classes take no part in: theirs are minus infinity.

    A region of a held-out class keeps its own, as in the federated loss: what is annotated is learned.

    Args:
        gt_classes: (R,) in 0..C.
        held_out: (C,) true for those classes.
    """
    absent = torch.cat((held_out, held_out.new_zeros(1)))  # (C + 1,)
    own = F.one_hot(gt_classes, len(absent)).bool()  # (R, C + 1)
    return logits.masked_fill(absent & ~own, -torch.inf)


def sigmoid_loss(logits: Tensor, gt_classes: Tensor, classes: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each class, summed over classes and averaged over regions.

    Args:
        logits: (R, C + 1); the background's column takes no part.
        gt_classes: (R,) in 0..C.
        classes: ids that take part; None for all.
    """
    regions, background = logits.shape[0], logits.shape[1] - 1
    if logits.numel() == 0:
        return logits.sum() * 0
    if classes is None:
        classes = torch.arange(background, device=logits.device)
    classes = classes[classes != background]
    targets = (gt_classes[:, None] == classes[None]).to(logits.dtype)  # (R, F)
    return F.binary_cross_entropy_with_logits(logits[:, classes], targets, reduction="sum") / regions
