"""Detic's builders of timm networks, and the weights that timm has for them."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

from pomp_engine.backbones.pyramid import pyramid
from pomp_engine.backbones.timm_convnext import TimmConvNeXt
from pomp_engine.backbones.timm_resnet import TimmResNet
from pomp_engine.checkpoint import TIMM

# What MODEL.TIMM.PRETRAINED means for the networks of published files; timm's own choice has changed since.
_WEIGHTS = {
    "resnet18": "resnet18.tv_in1k",  # torchvision's
    "convnext_tiny_21k": "convnext_tiny.fb_in22k",
}


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A ResNet or ConvNeXt of timm, named by ``MODEL.TIMM.BASE_NAME``, with random weights.

    Raises:
        UserError: another network.
    """
    node = cfg.MODEL.TIMM
    if "convnext" in node.BASE_NAME:
        return TimmConvNeXt(node.BASE_NAME, node.OUT_LEVELS, node.FREEZE_AT)
    return TimmResNet(node.BASE_NAME, node.OUT_LEVELS, node.NORM, node.FREEZE_AT)


@BACKBONE_REGISTRY.register()
def build_p67_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A timm network with P3 to P7, as the published Detic and POMP files name it."""
    return pyramid(cfg, build_timm_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_p35_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A timm network with P3 to P5."""
    return pyramid(cfg, build_timm_backbone(cfg, input_shape), coarse=False)


def pretrained_weights(cfg: CfgNode) -> str:
    """The address, ``timm://NAME``, of the weights that ``MODEL.TIMM.PRETRAINED`` asks for; empty where it does not.

    To be loaded where ``MODEL.WEIGHTS`` names none: building a model downloads nothing.
    """
    node = cfg.MODEL.get("TIMM")
    if node is None or not node.PRETRAINED or "_timm_" not in cfg.MODEL.BACKBONE.NAME:
        return ""
    return TIMM + _WEIGHTS.get(node.BASE_NAME, node.BASE_NAME)
