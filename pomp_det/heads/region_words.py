"""Heads on two frozen networks: a detection network's cells and a CLIP's image features, pooled for each box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.structures import Boxes
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align

from pomp_det.class_matrix import stage_matrix
from pomp_det.heads.cascade import DeticCascadeROIHeads
from pomp_det.heads.seen_words import Closeness, SeenWordsClassifier, seen_evidence
from pomp_det.proposals.cells import cell_boxes
from pomp_det.proposals.targets import level_points
from pomp_engine.backbones.detection_and_words import words_scale
from pomp_engine.backbones.nanodet import LEVELS
from prompt_core.errors import UserError


def cell_logits(cells: Sequence[Tensor], boxes: Tensor, num_classes: int) -> Tensor:
    """Logits (R, S) of the cell that predicts what is closest to each of one image's boxes.

    For a proposal that is the cell it comes from. A box that no cell's overlaps is answered by the nearest cell.

    Args:
        cells: (S + 44, H, W) of each level, of stride 8, 16, 32.
        boxes: (R, 4) in pixels.
    """
    logits = torch.cat([level[:num_classes].flatten(1) for level in cells], dim=1)  # (S, M)
    predicted = torch.cat(
        [cell_boxes(maps, level, num_classes) for level, maps in zip(LEVELS, cells, strict=True)]
    )  # (M, 4)
    overlap, closest = box_iou(boxes, predicted).max(dim=1)
    if bool((overlap == 0).any()):
        points = torch.cat(
            [
                level_points(maps.shape[-2], maps.shape[-1], 2**level, boxes.device)
                for level, maps in zip(LEVELS, cells, strict=True)
            ]
        )  # (M, 2)
        nearest = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, points.to(boxes.dtype)).argmin(dim=1)
        closest = torch.where(overlap > 0, closest, nearest)
    return logits[:, closest].T.to(boxes.dtype)


class RegionWordsPooler(nn.Module):
    """For each box the mean embedding (E,) of its places, and the logits (S,) of the seen classes."""

    def __init__(self, num_seen: int, words_scale: float) -> None:
        """
        Args:
            num_seen: S.
            words_scale: cells of the embeddings that a pixel has.
        """
        super().__init__()
        self.num_seen = num_seen
        self.words_scale = words_scale

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Boxes]) -> Tensor:
        """(R, E + S) of the boxes of all images.

        Args:
            maps: cells of each level (B, S + …, H, W), then embeddings (B, E, h, w).
        """
        *cells, words = (feature.detach() for feature in maps)  # what they learn, they learn of losses of their own
        tensors = [image.tensor for image in boxes]
        embeddings = roi_align(words, tensors, 1, self.words_scale, sampling_ratio=4, aligned=True).flatten(1)  # (R, E)
        logits = [
            cell_logits([level[image] for level in cells], image_boxes, self.num_seen)
            for image, image_boxes in enumerate(tensors)
        ]
        return torch.cat((embeddings, torch.cat(logits)), dim=1)


@ROI_BOX_HEAD_REGISTRY.register()
class RegionWordsHead(nn.Module):
    """Unit-norm embeddings and the evidence of the seen classes, from pooled (R, E + S); nothing learns."""

    @configurable
    def __init__(self, *, width: int, num_seen: int) -> None:
        super().__init__()
        self.width, self.num_seen = width, num_seen

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return {"width": cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM, "num_seen": cfg.MODEL.WORDS.SEEN_CLASSES}

    @property
    def output_shape(self) -> ShapeSpec:
        """E + S channels."""
        return ShapeSpec(channels=self.width + self.num_seen)

    def forward(self, pooled: Tensor) -> Tensor:
        embeddings, logits = pooled.split((self.width, self.num_seen), dim=1)
        return torch.cat((F.normalize(embeddings, dim=1), seen_evidence(logits)), dim=1)


@ROI_HEADS_REGISTRY.register()
class RegionWordsROIHeads(DeticCascadeROIHeads):
    """One stage that keeps the proposals' boxes and names them by :class:`SeenWordsClassifier`; masks are learned."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        node, head = cfg.MODEL.WORDS, cfg.MODEL.ROI_BOX_HEAD
        if "words" not in input_shape or head.NAME != "RegionWordsHead" or len(cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS) > 1:
            raise UserError(
                "RegionWordsROIHeads needs MODEL.BACKBONE.NAME build_detection_and_words_backbone, "
                "MODEL.ROI_BOX_HEAD.NAME RegionWordsHead and one entry of MODEL.ROI_BOX_CASCADE_HEAD.IOUS"
            )
        if not (head.USE_ZEROSHOT_CLS and head.USE_SIGMOID_CE and head.MULT_PROPOSAL_SCORE):
            raise UserError(
                "RegionWordsROIHeads needs MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS, USE_SIGMOID_CE and MULT_PROPOSAL_SCORE "
                "True: its words are scored beside the detection network's own probabilities"
            )
        if node.WIDTH != head.ZEROSHOT_WEIGHT_DIM:
            raise UserError(
                f"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM is {head.ZEROSHOT_WEIGHT_DIM}; the image tower of "
                f"MODEL.WORDS.WIDTH {node.WIDTH} needs the same"
            )
        if node.SEEN_FROM >= node.SEEN_WHOLLY:
            raise UserError(
                f"MODEL.WORDS.SEEN_FROM is {node.SEEN_FROM}, SEEN_WHOLLY is {node.SEEN_WHOLLY}; the first has to be "
                "the smaller one"
            )
        options = super()._init_box_head(cfg, input_shape)
        options["box_in_features"] = [*(f"cells{level}" for level in LEVELS), "words"]
        scale = words_scale(node.SIZE, cfg.INPUT.MAX_SIZE_TEST)
        options["box_pooler"] = RegionWordsPooler(node.SEEN_CLASSES, scale)
        for predictor in options["box_predictors"]:
            matrix, source = stage_matrix(cfg)
            closeness = Closeness(node.SEEN_FROM, node.SEEN_WHOLLY, node.SEEN_SHARPNESS)
            predictor.cls_score = SeenWordsClassifier(
                matrix,
                node.SEEN_CLASSES,
                node.SEEN_NAMES,
                head.NORM_TEMP,
                node.UNSEEN_BIAS,
                node.SHARE_BIAS,
                closeness,
                source,
            )
            nn.init.zeros_(predictor.bbox_pred[-1].weight)
            predictor.requires_grad_(False)
        return options
