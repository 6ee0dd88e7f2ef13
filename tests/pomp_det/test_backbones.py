"""Bottom-up networks and the pyramid on top of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.layers import FrozenBatchNorm2d, ShapeSpec

from pomp_det import load_config
from pomp_engine.backbones.efficientnet_lite import EfficientNetStages
from pomp_engine.backbones.pyramid import pyramid
from pomp_engine.backbones.swin import SwinStages, build_swintransformer_fpn_backbone
from pomp_engine.backbones.timm_resnet import TimmResNet
from prompt_core import UserError


def test_pyramid_levels() -> None:
    cfg = load_config(None, {"MODEL.FPN.IN_FEATURES": ["layer3", "layer4", "layer5"], "MODEL.FPN.OUT_CHANNELS": 16})
    backbone = pyramid(cfg, EfficientNetStages()).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 64, 96))
    shapes = backbone.output_shape()
    assert list(features) == ["p3", "p4", "p5", "p6", "p7"]
    for level, (name, feature) in enumerate(features.items(), start=3):
        assert shapes[name] == ShapeSpec(channels=16, stride=2**level)
        assert feature.shape == (1, 16, -(-64 // 2**level), -(-96 // 2**level))
    torch.testing.assert_close(features["p7"], backbone.top_block.p7(features["p6"].relu()))


@pytest.mark.parametrize(("make", "stem"), [(EfficientNetStages, "conv_stem"), (TimmResNet, "conv1")])
def test_frozen_levels(make: Any, stem: str) -> None:
    name = {"name": "resnet10t"} if make is TimmResNet else {}
    trainable = []
    for freeze_at in (0, 1, 2, 5):
        stages = make(norm="BN", freeze_at=freeze_at, **name)
        weights = [parameter.requires_grad for parameter in getattr(stages.base, stem).parameters()]
        assert all(weights) is (freeze_at == 0)
        trainable.append(sum(parameter.requires_grad for parameter in stages.parameters()))
        if freeze_at == 5:
            assert all(
                isinstance(module, FrozenBatchNorm2d) for n, module in stages.named_modules() if n.endswith("bn1")
            )
    assert trainable[0] > trainable[1] > trainable[2] > trainable[3] == 0


def test_resnet_features_and_unused_classifier() -> None:
    stages = TimmResNet("resnet10t", out_levels=(2, 3, 4, 5)).eval()
    with torch.no_grad():
        features = stages(torch.randn(1, 3, 64, 64))
    assert {name: tuple(feature.shape[2:]) for name, feature in features.items()} == {
        "layer2": (16, 16), "layer3": (8, 8), "layer4": (4, 4), "layer5": (2, 2)
    }  # fmt: skip
    assert all(features[name].shape[1] == shape.channels for name, shape in stages.output_shape().items())
    state = stages.state_dict() | {"base.fc.weight": torch.zeros(11221, 512), "base.fc.bias": torch.zeros(11221)}
    stages.load_state_dict(state, strict=True)
    with pytest.raises(RuntimeError, match=r"base.fcc.weight"):
        stages.load_state_dict(state | {"base.fcc.weight": torch.zeros(1)}, strict=True)


def test_swin_features_and_published_names() -> None:
    stages = SwinStages(embed_dim=24, depths=(1, 1, 2, 1), num_heads=(1, 2, 3, 4), out_indices=(1, 2, 3)).eval()
    with torch.no_grad():
        features = stages(torch.randn(1, 3, 64, 64))
    assert {name: tuple(feature.shape[1:]) for name, feature in features.items()} == {
        "swin1": (48, 8, 8), "swin2": (96, 4, 4), "swin3": (192, 2, 2)
    }  # fmt: skip
    assert stages.output_shape()["swin3"] == ShapeSpec(channels=192, stride=32)
    names = set(stages.state_dict())
    assert {
        "patch_embed.proj.weight",
        "layers.2.blocks.1.attn.relative_position_bias_table",
        "layers.2.blocks.1.mlp.fc1.weight",
        "layers.0.downsample.reduction.weight",
        "norm1.weight",
        "norm3.weight",
    } <= names
    assert "norm0.weight" not in names


def test_swin_builder() -> None:
    cfg = load_config(None, {"MODEL.SWIN.SIZE": "T", "MODEL.FPN.IN_FEATURES": ["swin1", "swin2", "swin3"]})
    backbone = build_swintransformer_fpn_backbone(cfg, ShapeSpec(channels=3))
    assert [shape.stride for shape in backbone.output_shape().values()] == [8, 16, 32, 64, 128]
    cfg.MODEL.SWIN.SIZE = "XL"
    with pytest.raises(UserError, match=r"MODEL.SWIN.SIZE is 'XL'; expected one of T, S, B, "):
        build_swintransformer_fpn_backbone(cfg, ShapeSpec(channels=3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimmResNet("resnet51_in21k"), "'resnet51_in21k', no ResNet of timm; nearest"),
        (lambda: TimmResNet("resnet10t", norm="LN"), "TIMM.NORM is 'LN'"),
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
