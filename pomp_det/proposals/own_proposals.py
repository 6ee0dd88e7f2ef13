"""A detector's own proposals for photos of a data set, as regions from outside have them: without any class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from pomp_det.build import build_detector
from pomp_det.checkpoint import load_weights
from pomp_det.class_matrix import RANDOM
from pomp_det.data.evaluation_mapper import build_test_mapper
from pomp_det.heads.inference import clip_boxes
from pomp_engine.data.proposal_files import GivenRegions
from pomp_engine.trained_weights import load_trained
from prompt_core.errors import UserError


class OwnProposals:
    """What a detector proposes, in the place of :class:`pomp_engine.data.proposal_files.ProposalFile`.

    Args:
        cfg: of the detector, whose ``MODEL.WEIGHTS`` are loaded; its classes do not matter.
        limit: the best proposals of a photo that are used.

    Raises:
        UserError: weights that lack some of the detector's, or a detector without proposals.
    """

    def __init__(self, cfg: CfgNode, limit: int = 300) -> None:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.VOCABULARY, cfg.MODEL.PROMPT, cfg.MODEL.ROI_BOX_HEAD.BACKGROUND = "", "", ""
        cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH = RANDOM
        model = build_detector(cfg)
        if getattr(model, "proposal_generator", None) is None:
            raise UserError("this configuration proposes nothing; give a file of regions")
        load_trained(model, cfg, load_weights, "detector")
        self._model: Any = model.eval()
        self._mapper, self.limit = build_test_mapper(cfg), limit
        self._logits = cfg.MODEL.PROPOSAL_GENERATOR.NAME in ("RPN", "RRPN")

    @property
    def model(self) -> nn.Module:
        """The detector."""
        return self._model

    @torch.no_grad()
    def regions(self, photo: Mapping[str, Any], height: int, width: int) -> GivenRegions:
        """The proposals of a photo, by falling score, in its pixels.

        Args:
            photo: a record of a data set.
            height, width: of the photo, in pixels.
        """
        example = self._mapper(photo)
        images = self._model.preprocess_image([example])
        features = self._model.features(images.tensor)
        (proposals,), _ = self._model.proposal_generator(images, features, None)
        scores = proposals.objectness_logits
        scores, order = (scores.sigmoid() if self._logits else scores).clamp(0, 1).sort(descending=True)
        h, w = images.image_sizes[0]
        boxes = proposals.proposal_boxes.tensor[order]
        boxes = clip_boxes(boxes * boxes.new_tensor([width / w, height / h] * 2), (height, width))
        usable = ((boxes[:, 2:] > boxes[:, :2]).all(dim=1)).nonzero().squeeze(1)[: self.limit]
        return GivenRegions(boxes[usable].cpu().numpy(), scores[usable].cpu().numpy(), None)
