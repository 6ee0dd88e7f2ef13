"""Ensembles of the two classifications of a mask proposal: learned embedding and CLIP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import Tensor

from pomp_engine.geometric_ensemble import geometric_ensemble
from prompt_core.errors import UserError, nearest

ENSEMBLES = ("zsseg", "zegformer")


@dataclass(frozen=True)
class EnsembleOptions:
    """How the scores of the learned embedding are combined with CLIP's.

    Attributes:
        kind: ``zsseg``, or ``zegformer``, which uses the last two instead of ``weight``.
        with_clip: also classify the regions with CLIP.
        weight: see :func:`pomp_engine.geometric_ensemble.geometric_ensemble`; 0 takes only CLIP's scores.
        zegformer_lambda: see :func:`zegformer_fusion`; 2/3 in ZegFormer's ``mask_former_model.py``.
        zegformer_gamma: see :func:`calibrate`; also without CLIP's classification of the regions. 0.1 in most of
            ZegFormer's files (``GZERO_CALIBRATE``).

    Raises:
        UserError: an unknown ensemble, or a lambda outside 0..1.
    """

    kind: str = "zsseg"
    with_clip: bool = True
    weight: float = 0.8
    zegformer_lambda: float = 2 / 3
    zegformer_gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in ENSEMBLES:
            raise UserError(
                f"MODEL.CLIP_ADAPTER.ENSEMBLE is {self.kind!r}; expected {' or '.join(ENSEMBLES)}"
                f"{nearest(self.kind, ENSEMBLES)}"
            )
        if not 0 <= self.zegformer_lambda <= 1:
            raise UserError(f"MODEL.CLIP_ADAPTER.ZEGFORMER_LAMBDA is {self.zegformer_lambda}; expected 0 to 1")

    @classmethod
    def from_config(cls, node: CfgNode) -> EnsembleOptions:
        """The options of ``MODEL.CLIP_ADAPTER``."""
        return cls(
            node.ENSEMBLE, node.CLIP_ENSEMBLE, node.CLIP_ENSEMBLE_WEIGHT, node.ZEGFORMER_LAMBDA, node.ZEGFORMER_GAMMA
        )

    @property
    def clip_alone(self) -> bool:
        """Whether the learned embedding has no say."""
        return self.with_clip and self.kind == "zsseg" and self.weight <= 0

    def region_probabilities(self, regions: Tensor, queries: Tensor) -> Tensor:
        """CLIP's class probabilities (V, C) of regions; those of ZegFormer leave a share to "no object".

        Args:
            regions: CLIP's logits (V, C + 1), the last one for "no object", which neither ensemble uses.
            queries: logits (V, C + 1) of the learned embedding, whose last one ZegFormer puts in that place.
        """
        if self.kind == "zegformer":
            return torch.cat((regions[:, :-1], queries[:, -1:]), dim=1).softmax(dim=1)[:, :-1]
        return regions[:, :-1].softmax(dim=1)

    def join(self, query: Tensor, region: Tensor, seen: Tensor | None) -> Tensor:
        """The combined class probabilities (Q, C) of the embedding and of CLIP."""
        if self.kind == "zegformer":
            return zegformer_fusion(query, region, seen, self.zegformer_lambda)
        if self.clip_alone:
            return region
        return geometric_ensemble(query, region, seen, self.weight)


def zegformer_fusion(segment: Tensor, image: Tensor, seen: Tensor | None, weight: float) -> Tensor:
    """ZegFormer's fusion (arXiv 2112.07910, inference of the full model), not renormalised.

    With p the probabilities of the segment embedding, p' those of CLIP on the segment's crop, and S the seen classes::

        p_avg = sum of p'(j) over j in S, divided by |S|
        p_fusion(c) = p(c) ** lambda * p_avg ** (1 - lambda)     c seen
        p_fusion(c) = p(c) ** (1 - lambda) * p'(c) ** lambda     c unseen

    Unseen classes are treated as by :func:`geometric_ensemble`. CLIP does not rank the seen ones: it only gives their
    average probability, so that both groups are on one scale. :func:`calibrate` belongs to it.

    Sources: ZegFormer's ``mask_former/mask_former_model.py`` and its configuration files.

    Not as in ZegFormer here: the backbone (a DeepLab ResNet-101 for its plain one) and the schedules are those of the
    other segmenters. Regions are cut from the photo as ZSSeg does, which differs little: ZegFormer too squeezes the
    bounding box to a square and fills the rest with the mean colour, but samples it bilinearly, and shows CLIP an empty
    region as a blank picture where here it has ones in ``image``. Its CLIP reads 32 other templates for regions; here
    ``SEPERATE_ADAPTER`` would take them. Names joined by commas are one prompt here, an average of several there.
    Without known seen classes all are unseen.

    Args:
        segment: class probabilities (Q, C) of the learned embedding.
        image: class probabilities (Q, C) of CLIP; ones for regions that it did not see.
        seen: (C,) bool, or None.
        weight: lambda in 0..1.

    Returns:
        (Q, C).
    """
    unseen_form = segment ** (1 - weight) * image**weight
    if seen is None or not bool(seen.any()):
        return unseen_form
    seen = seen.to(segment.device)
    average = image[:, seen].mean(dim=1, keepdim=True)  # (Q, 1)
    return torch.where(seen, segment**weight * average ** (1 - weight), unseen_form)


def calibrate(maps: Tensor, seen: Tensor | None, gamma: float) -> Tensor:
    """ZegFormer's calibration (arXiv 2112.07910, inference): scores (C, H, W), those of seen classes less ``gamma``.

    Args:
        maps: see :func:`class_maps`.
        seen: (C,) bool; None leaves the maps as they are.
        gamma: against the bias towards seen classes; 0 changes nothing.
    """
    return maps if seen is None else maps - calibration(seen, gamma, maps)[:, None, None]


def calibration(seen: Tensor, gamma: float, maps: Tensor) -> Tensor:
    """What :func:`calibrate` takes from the scores of each class, (C,) like ``maps``."""
    return gamma * seen.to(maps)


def class_maps(classes: Tensor, masks: Tensor) -> Tensor:
    """Class scores (C, H, W) of each pixel: those of proposals (Q, C), weighted by mask probabilities (Q, H, W)."""
    return torch.einsum("qc,qhw->chw", classes, masks)
