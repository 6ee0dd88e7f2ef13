"""What a hierarchy says of a box: it is also one of the classes above its own, and may be one of those below.

Where people label with the most exact class that they can verify, as in Open Images, the box of an animal may show a
dog, so "dog" is no negative of it; and that of a dog shows an animal.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

import torch
from torch import Tensor, nn

from pomp_det.data.openimages_classes import read_hierarchy
from prompt_core.errors import UserError


class ClassHierarchy(nn.Module):
    """Targets and weights of the sigmoid loss by a hierarchy of the C classes.

    Source: ``HIERARCHY_IGNORE`` and ``HIERARCHY_POS_PARENTS`` of UniDet (Zhou et al., arXiv 2102.13086).

    Attributes:
        above: (C, C) true where the column's class is above the row's.
        positive: classes above the label are positives; otherwise they are left out as those below it are.
        missing: why the hierarchy is not known; empty where it is. A model that only predicts does not need it.
    """

    above: Tensor

    def __init__(self, ancestors: Sequence[Set[int]], positive: bool, missing: str = "") -> None:
        """
        Args:
            ancestors: of each class, the classes above it.
        """
        super().__init__()
        above = torch.zeros(len(ancestors), len(ancestors), dtype=torch.bool)
        for row, columns in enumerate(ancestors):
            above[row, sorted(columns)] = True
        self.register_buffer("above", above, persistent=False)
        self.positive, self.missing = positive, missing

    @classmethod
    def read(cls, path: str | Path, positive: bool) -> ClassHierarchy:
        """From a file of :func:`pomp_det.data.openimages_classes.read_hierarchy`.

        What is wrong with the file is kept in :attr:`missing`, not raised.
        """
        try:
            return cls(read_hierarchy(path), positive)
        except UserError as error:
            return cls([], positive, f"{error} (MODEL.ROI_BOX_HEAD.HIERARCHY_PATH)")

    def missing_for(self, num_classes: int) -> str:
        """Why a detector of ``num_classes`` cannot learn by this hierarchy; empty where it can."""
        if self.missing or len(self.above) == num_classes:
            return self.missing
        return f"the hierarchy is of {len(self.above)} classes, the detector has {num_classes} now"

    def positives(self, gt_classes: Tensor) -> Tensor:
        """The classes that are positives of some region, and the background where a region is one.

        Those above a label are in the batch, too, so that a federated loss keeps them. UniDet, which trains without
        that loss, would draw them as it draws negatives.

        Args:
            gt_classes: (R,) in 0..C, C the background.
        """
        present = gt_classes.unique()
        if not self.positive:
            return present
        return torch.cat((present, self._rows(self.above, present).any(dim=0).nonzero().squeeze(1))).unique()

    def terms(self, gt_classes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Targets and weights (R, F) of regions for the classes that take part.

        Args:
            gt_classes: (R,) in 0..C; the background has no class above or below it.
            classes: (F,) in 0..C-1.
        """
        own = gt_classes[:, None] == classes[None]  # (R, F)
        above = self._rows(self.above, gt_classes)[:, classes]
        below = self._rows(self.above.T, gt_classes)[:, classes]
        if self.positive:
            return own | above, ~below | own | above
        return own, ~(below | above) | own

    @staticmethod
    def _rows(relation: Tensor, gt_classes: Tensor) -> Tensor:
        known = gt_classes < len(relation)
        return relation[gt_classes.clamp(max=len(relation) - 1)] & known[:, None]
