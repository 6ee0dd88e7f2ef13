"""Training against a few classes of many: those of the batch, and some that are drawn (Detic's dynamic classifier)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from torch import Tensor

from pomp_det.heads.class_counts import ClassCounts
from pomp_det.heads.class_losses import federated_classes
from prompt_core.errors import UserError
from prompt_core.files import resolve_path


class SampledClasses(NamedTuple):
    """The classes that one training step knows.

    Attributes:
        ids: (S,) of the C classes, in the order of their columns; the background's column comes behind them.
        columns: (C + 1,) column of each class; S for the background, and for the classes that the step does not know.
    """

    ids: Tensor
    columns: Tensor

    def labels(self, images: Iterable[Sequence[int]]) -> list[list[int]]:
        """The columns of the class ids of images."""
        return [[int(self.columns[label]) for label in labels] for labels in images]

    def proposals(self, proposals: Sequence[Instances]) -> list[Instances]:
        """Proposals whose ``gt_classes`` are columns."""
        return [
            Instances(image.image_size, **image.get_fields() | {"gt_classes": self.columns[image.gt_classes]})
            for image in proposals
        ]


@dataclass(frozen=True)
class ClassSampler:
    """Which classes a step knows (Detic, arXiv 2201.02605, its code for all classes of ImageNet-21K).

    Attributes:
        number: of classes in a step; more when the batch has more.
        counts: that classes are drawn by for boxes. For image labels all have the same chance.
    """

    number: int
    counts: ClassCounts

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ClassSampler | None:
        """None without ``MODEL.DYNAMIC_CLASSIFIER``.

        Classes behind those of ``CAT_FREQ_PATH`` have no boxes: the file of LVIS serves LVIS with ImageNet-21K.

        Raises:
            UserError: options that do not go together.
        """
        if not cfg.MODEL.DYNAMIC_CLASSIFIER:
            return None
        node = cfg.MODEL.ROI_BOX_HEAD
        if not node.USE_ZEROSHOT_CLS:
            raise UserError("MODEL.DYNAMIC_CLASSIFIER needs a class matrix; set MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS")
        if node.USE_FED_LOSS or node.IGNORE_ZERO_CATS:
            raise UserError(
                "MODEL.DYNAMIC_CLASSIFIER chooses the classes of the loss; set ROI_BOX_HEAD.USE_FED_LOSS and "
                "IGNORE_ZERO_CATS to False"
            )
        if cfg.MODEL.WITH_CAPTION:
            raise UserError("MODEL.DYNAMIC_CLASSIFIER does not go with MODEL.WITH_CAPTION; set one of them to False")
        if cfg.MODEL.NUM_SAMPLE_CATS < 1:
            raise UserError(f"MODEL.NUM_SAMPLE_CATS is {cfg.MODEL.NUM_SAMPLE_CATS}; at least one class is expected")
        counts = ClassCounts.read(
            resolve_path(node.CAT_FREQ_PATH),
            cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            node.FED_LOSS_FREQ_WEIGHT,
            node.HELD_OUT_FREQUENCIES,
            more_classes=True,
        )
        return cls(cfg.MODEL.NUM_SAMPLE_CATS, counts)

    def sample(self, labels: Tensor, num_classes: int, boxes: bool) -> SampledClasses:
        """The classes of the labels, and others drawn without replacement until there are :attr:`number`.

        Args:
            labels: (L,) class ids of the batch, without background.
            boxes: whether they are of boxes.

        Raises:
            UserError: for boxes, when the images per class are not known.
        """
        weights = self.counts.of(num_classes).federated_weights() if boxes else torch.ones(num_classes)
        ids = federated_classes(labels, weights.to(labels.device), self.number)
        columns = ids.new_full((num_classes + 1,), len(ids))
        columns[ids] = torch.arange(len(ids), device=ids.device)
        return SampledClasses(ids, columns)
