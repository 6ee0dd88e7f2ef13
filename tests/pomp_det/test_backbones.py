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
from pomp_engine.backbones.timm_backbones import build_p35_timm_fpn_backbone, pretrained_weights
from pomp_engine.backbones.timm_convnext import TimmConvNeXt
from pomp_engine.backbones.timm_resnet import TimmResNet
from prompt_core import UserError

from ..support.backbone_names import convnext, numbered_state


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


def test_convnext_features_are_counted_as_published() -> None:
    """``layer1`` has stride 4, unlike a ResNet's; the published files name ``layer2`` to ``layer4``."""
    stages = TimmConvNeXt("convnext_atto", out_levels=(2, 3, 4)).eval()
    with torch.no_grad():
        features = stages(torch.randn(1, 3, 64, 96))
    assert {name: tuple(feature.shape[1:]) for name, feature in features.items()} == {
        "layer2": (80, 8, 12), "layer3": (160, 4, 6), "layer4": (320, 2, 3)
    }  # fmt: skip
    assert stages.output_shape()["layer3"] == ShapeSpec(channels=160, stride=16)
    rates = [module.drop_prob for module in stages.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.3)  # 0.2 for tiny and small


def test_convnext_weights_of_its_authors_and_of_timm() -> None:
    """The authors' names as timm itself translates them."""
    import timm
    from timm.models.convnext import checkpoint_filter_fn

    theirs = numbered_state(convnext((2, 2, 6, 2), (40, 80, 160, 320), classes=5))
    network = timm.create_model("convnext_atto", conv_mlp=False, num_classes=5)
    translated = checkpoint_filter_fn(theirs, network)
    assert network.load_state_dict(translated).missing_keys == []
    stages = TimmConvNeXt("convnext_atto")
    own = stages.state_dict()
    for state in (theirs, translated):
        weights = stages.from_classifier(state)
        assert weights is not None
        assert weights.keys() == own.keys()
        for key, value in weights.items():
            stem = key.removeprefix("base.").replace("stem_", "stem.").replace("stages_", "stages.")
            assert torch.equal(value, translated[stem])
    assert stages.from_classifier({"conv1.weight": torch.zeros(1)}) is None


def test_levels_that_do_not_train_in_a_convnext() -> None:
    stages = TimmConvNeXt("convnext_atto", out_levels=(1, 2), freeze_at=2)
    parts = {
        name: all(parameter.requires_grad for parameter in part.parameters()) for name, part in stages.base.items()
    }
    assert parts == {"stem_0": False, "stem_1": False, "stages_0": False, "stages_1": True}


def test_a_pyramid_without_its_coarse_levels() -> None:
    settings = {"MODEL.TIMM.BASE_NAME": "resnet10t", "MODEL.FPN.IN_FEATURES": ["layer3", "layer4", "layer5"]}
    backbone = build_p35_timm_fpn_backbone(load_config(None, settings), ShapeSpec(channels=3))
    assert {name: shape.stride for name, shape in backbone.output_shape().items()} == {"p3": 8, "p4": 16, "p5": 32}


def test_weights_that_timm_has() -> None:
    """Those of the published files are named by what timm called so then, see ``_WEIGHTS``."""
    backbone = {"MODEL.BACKBONE.NAME": "build_p67_timm_fpn_backbone", "MODEL.TIMM.PRETRAINED": True}
    names = {"resnet18": "resnet18.tv_in1k", "convnext_tiny_21k": "convnext_tiny.fb_in22k", "resnet34": "resnet34"}
    for name, weights in names.items():
        cfg = load_config(None, backbone | {"MODEL.TIMM.BASE_NAME": name})
        assert pretrained_weights(cfg) == f"timm://{weights}"
    assert pretrained_weights(load_config(None, backbone | {"MODEL.TIMM.PRETRAINED": False})) == ""
    assert pretrained_weights(load_config(None, {"MODEL.TIMM.PRETRAINED": True})) == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TimmConvNeXt("convnext_tiny_22k"),
            "'convnext_tiny_22k', no ConvNeXt of timm; nearest: 'convnext_tiny'",
        ),
        (lambda: TimmConvNeXt("convnext_atto", out_levels=(3, 4, 5)), r"OUT_LEVELS is \[3, 4, 5\]; a ConvNeXt has"),
        (lambda: TimmResNet("resnet51_in21k"), "'resnet51_in21k', no ResNet of timm; nearest"),
        (lambda: TimmResNet("resnet10t", norm="LN"), "TIMM.NORM is 'LN'"),
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
