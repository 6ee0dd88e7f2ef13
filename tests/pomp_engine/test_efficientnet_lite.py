"""EfficientNet-Lite0 as a backbone by itself."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from pomp_engine.backbones.efficientnet_lite import EfficientNetStages, add_backbone_config, backbone_weights
from prompt_core import UserError


def test_efficientnet_is_timms() -> None:
    import timm

    reference = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4)).eval()
    generator = torch.Generator().manual_seed(0)
    for name, value in reference.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.add_(torch.rand(value.shape, generator=generator))
    photo = torch.randn(1, 3, 64, 64, generator=generator)
    for norm in ("FrozenBN", "BN"):
        stages = EfficientNetStages(norm=norm).eval()
        stages.base.load_state_dict(reference.state_dict())
        with torch.no_grad():
            for features, expected in zip(stages(photo).values(), reference(photo), strict=True):
                torch.testing.assert_close(features, expected)


def test_the_backbone_of_the_configuration_gives_four_features() -> None:
    cfg = get_cfg()
    add_backbone_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_efficientnet_lite_backbone"
    backbone = build_backbone(cfg).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 64, 96))
    assert list(features) == ["layer2", "layer3", "layer4", "layer5"]
    shapes = backbone.output_shape()
    for level, (name, feature) in enumerate(features.items(), start=2):
        assert shapes[name] == ShapeSpec(channels=feature.shape[1], stride=2**level)
        assert feature.shape[2:] == (64 // 2**level, 96 // 2**level)
    # Further features change neither the weights' names nor the values of the others.
    stages = EfficientNetStages().eval()
    stages.load_state_dict(backbone.state_dict())
    generator = torch.Generator().manual_seed(0)
    photo = torch.randn(1, 3, 64, 64, generator=generator)
    with torch.no_grad():
        for name, feature in stages(photo).items():
            assert torch.equal(feature, backbone(photo)[name])


def test_published_weights_get_the_names_of_their_place() -> None:
    import timm

    source = timm.create_model("tf_efficientnet_lite0").state_dict()
    stages = EfficientNetStages(norm="BN")
    for place in ("", "backbone"):
        weights = backbone_weights(source, place)
        assert weights is not None
        prefix = f"{place}." if place else ""
        assert {key.removeprefix(prefix) for key in weights} == set(stages.state_dict())
    assert backbone_weights({"weight": torch.zeros(1)}, "backbone") is None


def test_mistakes() -> None:
    with pytest.raises(UserError, match="no EfficientNet of timm; nearest"):
        EfficientNetStages("efficientnet_lite9")
    with pytest.raises(UserError, match=r"EFFICIENTNET.NORM is 'GN'"):
        EfficientNetStages(norm="GN")
