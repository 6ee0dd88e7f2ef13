"""CenterNet as Detectron2's proposal generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import ImageList, Instances
from detectron2.utils import comm
from torch import Tensor, nn

from pomp_det.proposals.decode import level_candidates, select_proposals
from pomp_det.proposals.head import CenterNetHead
from pomp_det.proposals.losses import heatmap_focal_loss, side_distance_loss
from pomp_det.proposals.targets import batch_targets, level_points, make_grid
from prompt_core.errors import UserError


@dataclass(frozen=True)
class Levels:
    """The feature maps that proposals come from.

    Attributes:
        features: their names.
        strides: in pixels.
        size_ranges: smallest and largest half box diagonal of each level, in pixels.
    """

    features: tuple[str, ...]
    strides: tuple[int, ...]
    size_ranges: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Selection:
    """Which cells become proposals.

    Attributes:
        score_threshold: smallest heat of a proposal.
        nms_threshold: None for no suppression.
        limit_per_level: proposals of a level before suppression.
        limit: proposals of an image after it.
        keep_ties: see :func:`pomp_det.proposals.decode.select_proposals`.
    """

    score_threshold: float
    nms_threshold: float | None
    limit_per_level: int
    limit: int
    keep_ties: bool = True


@dataclass(frozen=True)
class LossOptions:
    """Targets and losses.

    Attributes:
        min_overlap, min_radius: see :func:`pomp_det.proposals.targets.batch_targets`.
        focal: keywords of :func:`pomp_det.proposals.losses.heatmap_focal_loss`.
        box_loss: ``giou``, ``iou`` or ``linear_iou``.
        weights: of the positive, negative and box losses.
        plain_box_mean: every regressed location counts the same; False weights it by the heat map.
        reduce: average the normalisers over processes.
    """

    min_overlap: float = 0.8
    min_radius: float = 4
    focal: Mapping[str, float] = field(default_factory=dict)
    box_loss: str = "giou"
    weights: tuple[float, float, float] = (1.0, 1.0, 2.0)
    plain_box_mean: bool = True
    reduce: bool = True


@PROPOSAL_GENERATOR_REGISTRY.register()
class CenterNet(nn.Module):
    """Class-agnostic CenterNet proposals (CenterNet2, arXiv 2103.07461).

    Losses are divided by the number of positives, averaged over processes; all processes take part in every step, so
    that box and image batches may mix among them.
    """

    @configurable
    def __init__(
        self,
        *,
        head: nn.Module,
        levels: Levels,
        training: Selection,
        inference: Selection,
        loss: LossOptions,
    ) -> None:
        """
        Args:
            training, inference: which cells become proposals in each phase.
        """
        super().__init__()
        self.centernet_head = head
        self.levels = levels
        self.training_selection, self.inference_selection = training, inference
        self.loss = loss

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.CENTERNET
        _check(cfg, input_shape)
        head = CenterNetHead(
            input_shape[node.IN_FEATURES[0]].channels,
            len(node.IN_FEATURES),
            node.NUM_SHARE_CONVS + node.NUM_BOX_CONVS,
            node.NORM,
            node.PRIOR_PROB,
        )
        return {
            "head": head,
            "levels": Levels(tuple(node.IN_FEATURES), tuple(node.FPN_STRIDES), tuple(map(tuple, node.SOI))),
            "training": Selection(
                node.INFERENCE_TH,
                None if node.NOT_NMS else node.NMS_TH_TRAIN,
                node.PRE_NMS_TOPK_TRAIN,
                node.POST_NMS_TOPK_TRAIN,
                node.KEEP_TIES,
            ),
            "inference": Selection(
                node.INFERENCE_TH,
                None if node.NOT_NMS else node.NMS_TH_TEST,
                node.PRE_NMS_TOPK_TEST,
                node.POST_NMS_TOPK_TEST,
                node.KEEP_TIES,
            ),
            "loss": LossOptions(
                min_overlap=node.HM_MIN_OVERLAP,
                min_radius=node.MIN_RADIUS,
                focal={
                    "alpha": node.HM_FOCAL_ALPHA,
                    "beta": node.HM_FOCAL_BETA,
                    "gamma": node.LOSS_GAMMA,
                    "clamp": node.SIGMOID_CLAMP,
                    "ignore_above": node.IGNORE_HIGH_FP,
                },
                box_loss=node.LOC_LOSS_TYPE,
                weights=(node.POS_WEIGHT, node.NEG_WEIGHT, node.REG_WEIGHT),
                plain_box_mean=node.NOT_NORM_REG,
                reduce=not node.NO_REDUCE,
            ),
        }

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Proposals of each image, without gradient, and in training the losses.

        Args:
            gt_instances: with ``gt_boxes``; in training only.
        """
        heatmaps, sides = self.centernet_head([features[name] for name in self.levels.features])
        with torch.no_grad():
            proposals = self.proposals(heatmaps, sides, images.image_sizes)
        if not self.training:
            return proposals, {}
        assert gt_instances is not None, "training needs gt_instances"
        return proposals, self.losses(heatmaps, sides, [image.gt_boxes.tensor for image in gt_instances])

    def losses(self, heatmaps: list[Tensor], sides: list[Tensor], boxes: list[Tensor]) -> dict[str, Tensor]:
        """Losses of the head's outputs, with the ``boxes`` (N_i, 4) of each image."""
        shapes = [(int(heatmap.shape[2]), int(heatmap.shape[3])) for heatmap in heatmaps]
        grid = make_grid(shapes, self.levels.strides, self.levels.size_ranges, heatmaps[0].device)
        targets = batch_targets(grid, boxes, self.loss.min_overlap, self.loss.min_radius)
        logits = torch.cat([heatmap.flatten() for heatmap in heatmaps])  # (M,) level, image, row, column
        predicted = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, 4) for level in sides])  # (M, 4)

        positive, negative = heatmap_focal_loss(logits, targets.heatmap, targets.positives, **self.loss.focal)
        # Their number is needed on the host, which waits for it once.
        regressed = (targets.sides.max(dim=1).values >= 0).nonzero().squeeze(1)
        box_loss = side_distance_loss(predicted[regressed], targets.sides[regressed], self.loss.box_loss)
        weights = torch.ones_like(box_loss) if self.loss.plain_box_mean else targets.heatmap[regressed]
        num_positives, weight_sum = self._mean_over_processes(
            torch.stack([weights.new_full((), len(targets.positives)), weights.sum()])
        ).clamp(min=1)
        positive_weight, negative_weight, box_weight = self.loss.weights
        return {
            "loss_centernet_loc": box_weight * (box_loss * weights).sum() / weight_sum,
            "loss_centernet_agn_pos": positive_weight * positive / num_positives,
            "loss_centernet_agn_neg": negative_weight * negative / num_positives,
        }

    def proposals(
        self, heatmaps: list[Tensor], sides: list[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """Proposals of each image from the head's outputs."""
        selection = self.training_selection if self.training else self.inference_selection
        points = [
            level_points(int(heatmap.shape[2]), int(heatmap.shape[3]), stride, heatmap.device)
            for heatmap, stride in zip(heatmaps, self.levels.strides, strict=True)
        ]
        result = []
        for image, size in enumerate(image_sizes):
            candidates = [
                level_candidates(
                    points[level],
                    stride,
                    heatmaps[level][image].flatten().float(),
                    sides[level][image].permute(1, 2, 0).reshape(-1, 4).float(),
                    selection.score_threshold,
                    selection.limit_per_level,
                )
                for level, stride in enumerate(self.levels.strides)
            ]
            boxes, scores = zip(*candidates, strict=True)
            result.append(
                select_proposals(boxes, scores, size, selection.nms_threshold, selection.limit, selection.keep_ties)
            )
        return result

    def _mean_over_processes(self, numbers: Tensor) -> Tensor:
        if not self.loss.reduce or comm.get_world_size() == 1:
            return numbers
        torch.distributed.all_reduce(numbers)
        return numbers / comm.get_world_size()


def _check(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
    node = cfg.MODEL.CENTERNET
    wanted = {"ONLY_PROPOSAL": True, "WITH_AGN_HM": True}
    wanted |= dict.fromkeys(("USE_DEFORMABLE", "MORE_POS", "CENTER_NMS", "AS_PROPOSAL"), False)
    for key, value in wanted.items():
        if node[key] is not value:
            raise UserError(
                f"MODEL.CENTERNET.{key} is {node[key]}; CenterNet proposes class-agnostic boxes here: set it to {value}"
            )
    if node.LOC_LOSS_TYPE not in ("giou", "iou", "linear_iou"):
        raise UserError(f"MODEL.CENTERNET.LOC_LOSS_TYPE is {node.LOC_LOSS_TYPE!r}; expected giou, iou or linear_iou")
    missing = [name for name in node.IN_FEATURES if name not in input_shape]
    if missing:
        raise UserError(f"MODEL.CENTERNET.IN_FEATURES names {missing}; the backbone gives {sorted(input_shape)}")
    strides = [input_shape[name].stride for name in node.IN_FEATURES]
    if strides != list(node.FPN_STRIDES) or len(node.SOI) != len(strides):
        raise UserError(
            f"MODEL.CENTERNET.FPN_STRIDES is {node.FPN_STRIDES} with {len(node.SOI)} size ranges; "
            f"the features {node.IN_FEATURES} have strides {strides}"
        )
