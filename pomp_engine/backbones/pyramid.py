"""The feature pyramid P3 to P7 on top of any bottom-up network."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_resnet_backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7

from pomp_engine.backbones.efficientnet_lite import EfficientNetStages
from prompt_core.errors import UserError


def pyramid(cfg: CfgNode, bottom_up: Backbone, coarse: bool = True) -> FPN:
    """FPN (arXiv 1612.03144) of ``MODEL.FPN``; P6 and P7 are stride-2 convolutions from P5 (CenterNet2).

    Args:
        coarse: with P6 and P7.

    Raises:
        UserError: when ``MODEL.FPN.IN_FEATURES`` does not name three features of strides 8, 16 and 32.
    """
    shapes, names = bottom_up.output_shape(), list(cfg.MODEL.FPN.IN_FEATURES)
    strides = [shapes[name].stride if name in shapes else None for name in names]
    if strides != [8, 16, 32]:
        given = ", ".join(f"{name} (stride {shape.stride})" for name, shape in shapes.items())
        raise UserError(f"MODEL.FPN.IN_FEATURES is {names}; strides 8, 16, 32 are expected, the backbone gives {given}")
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return FPN(
        bottom_up,
        names,
        channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelP6P7(channels, channels, in_feature="p5") if coarse else None,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@BACKBONE_REGISTRY.register()
def build_p67_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's own ResNet with P3 to P7."""
    return pyramid(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_p67_efficientnet_lite_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """EfficientNet-Lite0 with P3 to P7; its width is ``MODEL.FPN.OUT_CHANNELS``."""
    node = cfg.MODEL.EFFICIENTNET
    return pyramid(cfg, EfficientNetStages(node.NAME, node.NORM, node.FREEZE_AT))
