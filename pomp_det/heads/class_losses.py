"""Box classification losses: which classes take part, and binary cross-entropy over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_det.heads.class_counts import ClassCounts
from pomp_det.heads.class_hierarchy import ClassHierarchy


@dataclass(frozen=True)
class ClassChoice:
    """Which classes take part in the box loss; without any option all do.

    Attributes:
        federated: those of the batch and some that are drawn, see :func:`federated_classes`.
        num_federated: how many that makes, the background counts as one.
        ignore_zero_classes: classes without training images take no part.
        hold_out: classes are held out by their frequency. A checkpoint's counts do not say which these are.
    """

    federated: bool = False
    num_federated: int = 50
    ignore_zero_classes: bool = False
    hold_out: bool = False

    @property
    def by_counts(self) -> bool:
        """Whether the choice goes by the images of each class."""
        return self.federated or self.ignore_zero_classes

    def classes(
        self, gt_classes: Tensor, num_classes: int, counts: ClassCounts, hierarchy: ClassHierarchy | None = None
    ) -> Tensor | None:
        """Ids of the classes that take part in a sigmoid loss; None for all.

        Args:
            gt_classes: (R,) in 0..C, C the background.
            hierarchy: of the classes; its positives are in the batch, too.

        Raises:
            UserError: counts or frequencies that are needed and not known.
        """
        if not self.by_counts:
            return (~counts.held_out_of(num_classes)).nonzero().squeeze(1) if self.hold_out else None
        weights = counts.federated_weights()
        if self.federated:
            present = gt_classes if hierarchy is None else hierarchy.positives(gt_classes)
            classes = federated_classes(present, weights, self.num_federated)
            classes = classes[classes != num_classes]
        else:
            classes = torch.arange(num_classes, device=gt_classes.device)
            if counts.held_out is not None:
                classes = classes[~counts.held_out]
        assert counts.weights is not None
        return classes[counts.weights[classes] > 1e-4] if self.ignore_zero_classes else classes


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
    annotated = F.one_hot(gt_classes, len(absent)).bool()  # (R, C + 1)
    return logits.masked_fill(absent & ~annotated, -torch.inf)


def sigmoid_loss(
    logits: Tensor, gt_classes: Tensor, classes: Tensor | None = None, hierarchy: ClassHierarchy | None = None
) -> Tensor:
    """Binary cross-entropy of each class, summed over classes and averaged over regions.

    Args:
        logits: (R, C + 1); the background's column takes no part.
        gt_classes: (R,) in 0..C.
        classes: ids that take part; None for all.
        hierarchy: of the classes; without one, a region is of its own class only.
    """
    regions, background = logits.shape[0], logits.shape[1] - 1
    if logits.numel() == 0:
        return logits.sum() * 0
    if classes is None:
        classes = torch.arange(background, device=logits.device)
    else:
        classes = classes[classes != background]
    weights = None
    targets = gt_classes[:, None] == classes[None]  # (R, F)
    if hierarchy is not None:
        targets, known = hierarchy.terms(gt_classes, classes)
        weights = known.to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits[:, classes], targets.to(logits.dtype), weights, reduction="sum")
    return loss / regions
