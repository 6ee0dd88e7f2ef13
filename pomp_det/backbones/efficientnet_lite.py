"""EfficientNet-Lite0 with a feature pyramid, for the small configurations."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

from pomp_det.backbones.pyramid import pyramid
from pomp_engine.backbones.efficientnet_lite import EfficientNetStages


@BACKBONE_REGISTRY.register()
def build_p67_efficientnet_lite_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """EfficientNet-Lite0 with P3 to P7; its width is ``MODEL.FPN.OUT_CHANNELS``."""
    node = cfg.MODEL.EFFICIENTNET
    return pyramid(cfg, EfficientNetStages(node.NAME, node.NORM, node.FREEZE_AT))
