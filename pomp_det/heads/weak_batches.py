"""The common part of both kinds of heads for images with labels or captions instead of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from prompt_core.errors import UserError


class WeakOptions(NamedTuple):
    """Options of image-labelled batches.

    Attributes:
        num_proposals: number of the best proposals to use.
        add_image_box: append the whole image to them.
        image_box_size: its sides as a fraction of the image's.
        with_labels: batches may carry labels, so every batch reports ``image_loss``.
        with_captions: batches may carry captions, so every batch reports ``caption_loss``.
        caption_weight: of the caption loss in the sum of all losses.
        negative_weight: of other images' captions in it.
    """

    num_proposals: int = 128
    add_image_box: bool = False
    image_box_size: float = 1.0
    with_labels: bool = False
    with_captions: bool = False
    caption_weight: float = 1.0
    negative_weight: float = 0.125

    @classmethod
    def from_config(cls, cfg: CfgNode) -> WeakOptions:
        """Raises UserError for options that do not go together."""
        node = cfg.MODEL.ROI_BOX_HEAD
        if cfg.MODEL.WITH_CAPTION and not node.ADD_IMAGE_BOX:
            raise UserError("MODEL.WITH_CAPTION compares captions with the whole image; set ROI_BOX_HEAD.ADD_IMAGE_BOX")
        if cfg.WITH_IMAGE_LABELS and not node.USE_ZEROSHOT_CLS:
            raise UserError("WITH_IMAGE_LABELS needs ROI_BOX_HEAD.USE_ZEROSHOT_CLS")
        if node.IMAGE_LABEL_LOSS == "image" and not node.ADD_IMAGE_BOX:
            raise UserError("ROI_BOX_HEAD.IMAGE_LABEL_LOSS image takes the appended whole-image box; set ADD_IMAGE_BOX")
        return cls(
            node.WS_NUM_PROPS,
            node.ADD_IMAGE_BOX,
            node.IMAGE_BOX_SIZE,
            cfg.WITH_IMAGE_LABELS,
            cfg.MODEL.WITH_CAPTION,
            # As in Detic's code, where the caption loss is a part of the image loss, and other captions have a weight
            # of their own only when all processes share theirs.
            node.CAPTION_WEIGHT * node.IMAGE_LOSS_WEIGHT,
            node.NEG_CAP_WEIGHT if cfg.MODEL.SYNC_CAPTION_BATCH else 1.0,
        )


class WeakTargets(NamedTuple):
    """The annotations of a batch without boxes.

    Attributes:
        kind: ``image``, ``caption`` or ``captiontag``.
        labels: class ids of each image.
        captions: (N, E) features of the captions of all processes, or None; see
            :class:`pomp_det.clip_towers.CaptionEncoder`.
        first_caption: the row of this process's first image in it.
    """

    kind: str
    labels: Sequence[Sequence[int]]
    captions: Tensor | None = None
    first_caption: int = 0


def top_proposals(proposals: Sequence[Instances], options: WeakOptions) -> list[Instances]:
    """The best proposals of each image, clipped to it, without gradient, optionally with the whole image last."""
    result = []
    for image in proposals:
        height, width = image.image_size
        chosen = Instances(image.image_size)
        chosen.proposal_boxes = Boxes(image.proposal_boxes.tensor[: options.num_proposals].detach().clone())
        chosen.objectness_logits = image.objectness_logits[: options.num_proposals].detach()
        chosen.proposal_boxes.clip(image.image_size)
        if options.add_image_box:
            margin_x, margin_y = width * (1 - options.image_box_size) / 2, height * (1 - options.image_box_size) / 2
            whole = chosen.proposal_boxes.tensor.new_tensor([[margin_x, margin_y, width - margin_x, height - margin_y]])
            image_box = Instances(image.image_size)
            image_box.proposal_boxes = Boxes(whole)
            image_box.objectness_logits = chosen.objectness_logits.new_ones(1)
            chosen = Instances.cat([chosen, image_box])
        result.append(chosen)
    return result


def caption_loss(logits: Tensor, own: Tensor, negative_weight: float) -> Tensor:
    """Binary cross-entropy of whole-image logits (B, N) against the captions of a batch, summed.

    Source: Detic, arXiv 2201.02605, section 4.3.

    Args:
        own: (B,) each image's caption; the others count ``negative_weight``.
    """
    target = F.one_hot(own, logits.shape[1]).to(logits.dtype)
    weight = target + (1 - target) * negative_weight
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")


def weak_losses(
    predictor: DeticFastRCNNOutputLayers,
    box_features: Tensor,
    predictions: tuple[Tensor, Tensor],
    proposals: Sequence[Instances],
    targets: WeakTargets,
    options: WeakOptions,
) -> dict[str, Tensor]:
    """Losses of one stage on a batch without boxes.

    Args:
        box_features: (R, …) that ``predictions`` were made from.
    """
    labels: Sequence[Sequence[int]] = targets.labels if targets.kind != "caption" else [[] for _ in proposals]
    losses = predictor.image_label_losses(predictions, proposals, labels)
    if options.with_captions:
        losses["caption_loss"] = predictions[0].sum() * 0
    if options.with_captions and targets.kind != "image" and targets.captions is not None:
        counts = torch.tensor([len(image) for image in proposals], device=box_features.device)
        present = counts.nonzero().squeeze(1)  # images that a stage left without any box have no loss
        whole_images = box_features[counts.cumsum(0)[present] - 1].flatten(start_dim=1)  # (B, D)
        logits = predictor.cls_score(whole_images, targets.captions)  # (B, N)
        loss = caption_loss(logits, present + targets.first_caption, options.negative_weight) / len(proposals)
        losses["caption_loss"] = options.caption_weight * loss
    return losses


def zero_weak_losses(predictions: tuple[Tensor, Tensor], options: WeakOptions) -> dict[str, Tensor]:
    """The keys that a box batch must report too, with zeros."""
    names = ["image_loss"] * options.with_labels + ["caption_loss"] * options.with_captions
    return {name: predictions[0].sum() * 0 for name in names}


def zero_mask_loss(mask_head: nn.Module) -> dict[str, Tensor]:
    """A mask loss of 0 that still reaches every parameter of the head."""
    total = sum((parameter.sum() * 0 for parameter in mask_head.parameters()), start=torch.zeros(()))
    return {"loss_mask": total}


def with_masks_only(proposals: Sequence[Instances]) -> list[Instances]:
    """Proposals for the mask loss: none of images that have boxes and no masks."""
    return [image if image.has("gt_masks") else image[:0] for image in proposals]


def without_classes(cfg: CfgNode) -> CfgNode:
    """A copy for Detectron2's builders, whose own predictors of many classes would only be thrown away."""
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.ROI_HEADS.NUM_CLASSES = 1
    plain.MODEL.ROI_BOX_HEAD.USE_FED_LOSS = False
    return plain


def weighted_mask_head(mask_head: Any, cfg: CfgNode) -> Any:
    """Detectron2's mask head with ``MODEL.ROI_HEADS.MASK_WEIGHT``."""
    mask_head.loss_weight = cfg.MODEL.ROI_HEADS.MASK_WEIGHT
    return mask_head
