"""Regions named by a frozen CLIP's look at their crops: no network of the detector's own, and nothing to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ROI_HEADS_REGISTRY, Backbone
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Instances
from torch import Tensor, nn

from pomp_det.clip_towers import RegionEmbedder, embedder_of
from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from pomp_det.heads.cascade import DeticCascadeROIHeads
from prompt_core.errors import UserError


class Pixels(Backbone):
    """The images themselves, as the feature ``pixels`` of stride 1."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``pixels`` (B, 3, H, W)."""
        return {"pixels": images}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Three channels of stride 1."""
        return {"pixels": ShapeSpec(channels=3, stride=1)}


@BACKBONE_REGISTRY.register()
def build_pixels_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Pixels:
    """For heads that look at the photo themselves.

    Raises:
        UserError: when what they see would not be RGB in 0..255.
    """
    if cfg.INPUT.FORMAT != "RGB" or any(cfg.MODEL.PIXEL_MEAN) or set(cfg.MODEL.PIXEL_STD) != {1.0}:
        raise UserError(
            "MODEL.BACKBONE.NAME build_pixels_backbone needs INPUT.FORMAT RGB, MODEL.PIXEL_MEAN [0.0, 0.0, 0.0] and "
            "MODEL.PIXEL_STD [1.0, 1.0, 1.0]: CLIP normalises the crops itself"
        )
    return Pixels()


class CropEmbedder(nn.Module):
    """:class:`RegionEmbedder` in the place of a pooler; it has no weights in the state dict."""

    def __init__(self, embedder: RegionEmbedder) -> None:
        super().__init__()
        self._embedder = embedder

    def forward(self, photos: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Unit-norm embeddings (R, E) of boxes (R_i, 4) in photos (3, H_i, W_i), RGB in 0..255."""
        return self._embedder(photos, boxes)


@ROI_HEADS_REGISTRY.register()
class CropWordsROIHeads(DeticCascadeROIHeads):
    """One stage that keeps the boxes and compares CLIP's embeddings of their crops with the class matrix.

    The open-vocabulary baseline of ViLD (arXiv 2104.13921, section 3.2): each box and a 1.5 times larger one are
    cropped and embedded, by the image tower of ``MODEL.DISTILLATION_CLIP``. It takes regions of
    ``MODEL.PROPOSALS.FILE``.
    """

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head, ious = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS
        if "pixels" not in input_shape or not head.USE_ZEROSHOT_CLS:
            raise UserError(
                "CropWordsROIHeads needs MODEL.BACKBONE.NAME build_pixels_backbone and "
                "MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS True"
            )
        width = head.ZEROSHOT_WEIGHT_DIM
        weights = tuple(cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS[0])
        predictor = DeticFastRCNNOutputLayers(
            cfg, ShapeSpec(channels=width), box2box_transform=Box2BoxTransform(weights=weights)
        )
        nn.init.eye_(predictor.cls_score.linear.weight)
        nn.init.zeros_(predictor.cls_score.linear.bias)
        predictor.requires_grad_(False)
        return {
            "box_in_features": ["pixels"],
            "box_pooler": CropEmbedder(embedder_of(cfg)),
            "box_heads": [nn.Identity()],
            "box_predictors": [predictor],
            "proposal_matchers": [Matcher(list(ious[:1]), [0, 1], allow_low_quality_matches=False)],
        }

    def stage_features(self, features: Sequence[Tensor], proposals: Sequence[Instances], stage: int) -> Tensor:
        """Embeddings (R, E) of the regions of all images, without the padding of the batch."""
        (pixels,) = features
        sizes = (image.image_size for image in proposals)
        photos = [photo[:, :height, :width] for photo, (height, width) in zip(pixels, sizes, strict=True)]
        return self.box_pooler(photos, [image.proposal_boxes.tensor for image in proposals])
