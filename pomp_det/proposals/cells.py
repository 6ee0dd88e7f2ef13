"""Proposals from a detection network's predictions per cell, whatever classes it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from pomp_det.proposals.cell_losses import cell_losses
from pomp_det.proposals.decode import level_candidates, select_proposals
from pomp_det.proposals.targets import level_points
from pomp_engine.backbones.nanodet import LEVELS, side_lengths
from prompt_core.errors import UserError


def cell_boxes(cells: Tensor, level: int, num_classes: int) -> Tensor:
    """The box (H * W, 4) that each cell of a level predicts, in pixels, within the padded image.

    Args:
        cells: (S + 44, H, W), logits of the S classes, then those of the box sides.
    """
    height, width = cells.shape[-2:]
    stride = 2**level
    points = level_points(height, width, stride, cells.device)
    at_least_single = torch.promote_types(cells.dtype, torch.float32)
    sides = side_lengths(cells[num_classes:].flatten(1).to(at_least_single), dim=0).T * stride  # (H * W, 4)
    corners = torch.cat((points - sides[:, :2], points + sides[:, 2:]), dim=1)
    return torch.minimum(corners, corners.new_tensor([width, height, width, height]) * stride).clamp(min=0)


@PROPOSAL_GENERATOR_REGISTRY.register()
class CellProposals(nn.Module):
    """Boxes of the cells of :class:`pomp_engine.backbones.nanodet.NanoDet`, without their classes.

    A proposal's score is the highest probability that its cell gives any class. Nothing learns here; with
    ``learned_rows`` there are losses of the detection network's own.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        score_threshold: float,
        nms_threshold: float,
        limit_per_level: int,
        limit: int,
        learned_rows: Sequence[int] = (),
    ) -> None:
        """
        Args:
            num_classes: classes that the network was trained for.
            limit_per_level: proposals of a level before suppression.
            limit: proposals of an image after it.
            learned_rows: the network's class of each word that is learned, in the order of the boxes' classes; empty
                where the network stays as it is.
        """
        super().__init__()
        self.num_classes = num_classes
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.limit_per_level, self.limit = limit_per_level, limit
        self.learned_rows = list(learned_rows)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        wanted = [f"cells{level}" for level in LEVELS]
        if any(name not in input_shape for name in wanted):
            raise UserError(
                f"MODEL.PROPOSAL_GENERATOR.NAME CellProposals needs the features {', '.join(wanted)}; the backbone "
                f"gives {', '.join(input_shape)}: set MODEL.BACKBONE.NAME build_detection_and_words_backbone"
            )
        node = cfg.MODEL.CENTERNET
        return {
            "num_classes": cfg.MODEL.WORDS.SEEN_CLASSES,
            "score_threshold": node.INFERENCE_TH,
            "nms_threshold": node.NMS_TH_TEST,
            "limit_per_level": node.PRE_NMS_TOPK_TEST,
            "limit": node.POST_NMS_TOPK_TEST,
            "learned_rows": _learned_rows(cfg),
        }

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Proposals of each image, with probabilities as ``objectness_logits``; losses where words are learned."""
        proposals = self._proposals(images, features)
        if not (self.training and self.learned_rows and gt_instances is not None):
            return proposals, {}
        cells = [features[f"cells{level}"] for level in LEVELS]
        boxes = [image.gt_boxes.tensor for image in gt_instances]
        classes = [image.gt_classes for image in gt_instances]
        most = max((int(image.max()) for image in classes if len(image)), default=-1)
        if most >= len(self.learned_rows):
            raise UserError(
                f"MODEL.WORDS.LEARNED_ROWS has {len(self.learned_rows)} rows, and there are boxes of word {most + 1}; "
                "give the detection network's class of each word"
            )
        return proposals, cell_losses(cells, boxes, classes, self.num_classes, self.learned_rows)

    @torch.no_grad()
    def _proposals(self, images: ImageList, features: dict[str, Tensor]) -> list[Instances]:
        result = []
        for image, size in enumerate(images.image_sizes):
            candidates = [self._level(features[f"cells{level}"][image], 2**level) for level in LEVELS]
            boxes, scores = zip(*candidates, strict=True)
            result.append(select_proposals(boxes, scores, size, self.nms_threshold, self.limit, keep_ties=False))
            result[-1].proposal_boxes.clip(size)
        return [image[image.proposal_boxes.nonempty()] for image in result]

    def _level(self, cells: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """Boxes and scores of a level's cells (C + 44, H, W)."""
        height, width = cells.shape[-2:]
        flat = cells.flatten(1).float()  # (C + 44, H * W)
        best = flat[: self.num_classes].amax(dim=0)
        likely = (best.sigmoid() > self.score_threshold).nonzero().squeeze(1)
        points = level_points(height, width, stride, cells.device)[likely]
        sides = side_lengths(flat[self.num_classes :, likely], dim=0).T
        boxes, heat_root = level_candidates(
            points, stride, best[likely], sides, self.score_threshold, self.limit_per_level
        )
        return boxes, heat_root.square()


def _learned_rows(cfg: CfgNode) -> list[int]:
    """``MODEL.WORDS.LEARNED_ROWS``; other words than were learned may be asked for, so that their number says nothing.

    Raises:
        UserError: rows that the detection network has not.
    """
    rows, classes = list(cfg.MODEL.WORDS.LEARNED_ROWS), cfg.MODEL.WORDS.SEEN_CLASSES
    wrong = next((row for row in rows if not 0 <= row < classes), None)
    if wrong is not None:
        raise UserError(f"MODEL.WORDS.LEARNED_ROWS has {wrong}; the detection network has classes 0 to {classes - 1}")
    return rows
