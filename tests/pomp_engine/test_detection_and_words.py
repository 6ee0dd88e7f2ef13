"""A detection network beside an image tower: the words of places are the tower's own embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("detectron2")

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_backbone

from pomp_engine.backbones.detection_and_words import DetectionAndWords, add_words_config, words_scale
from pomp_engine.half_precision import backbone_features
from prompt_core import UserError
from prompt_core.clip import load_clip

MEAN, STD = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]  # of BGR
SIZE = 128  # pixels of the longer side that comes in


def configuration(**changed: Any) -> CfgNode:
    cfg = get_cfg()
    add_words_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_detection_and_words_backbone"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = MEAN, STD
    cfg.MODEL.WORDS.merge_from_list([part for pair in changed.items() for part in pair])
    cfg.INPUT.MAX_SIZE_TEST = SIZE
    cfg.INPUT.FORMAT = "BGR"
    return cfg


@pytest.fixture(scope="module")
def tower() -> Any:
    """The image tower of mini."""
    clip: Any = load_clip("mini")
    return clip.model.visual.float().eval()


@pytest.fixture(scope="module")
def make(tower: Any) -> Callable[..., DetectionAndWords]:
    """Builds the backbone with a tiny random detection network and mini's image tower, which sees ``size`` pixels."""

    def built(size: int = SIZE) -> DetectionAndWords:
        torch.manual_seed(0)
        backbone = build_backbone(configuration(SEEN_CLASSES=4, CHANNELS=[4, 8, 16, 32], SIZE=size)).eval()
        weights = {name: value for name, value in tower.trunk.state_dict().items() if "num_batches" not in name}
        backbone.image_tower.load_state_dict(weights)
        projection = tower.head.proj
        backbone.projection.load_state_dict({"weight": projection.weight[:, :, None, None], "bias": projection.bias})
        return backbone

    return built


def pixels(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth photo (3, H, W), RGB in 0..255."""
    coarse = 255 * torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]


def normalised(photo: Tensor) -> Tensor:
    """What the detector hands to its backbone: BGR, by its own mean and deviation."""
    return (photo.flip(0) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def embedding(tower: Any, photo: Tensor, size: tuple[int, int]) -> Tensor:
    """What the whole tower says of an RGB photo at that size, before its length is taken off."""
    photo = F.interpolate(photo[None] / 255, size, mode="bilinear", align_corners=False, antialias=True)
    mean, std = tower.preprocess_cfg["mean"], tower.preprocess_cfg["std"]
    with torch.no_grad():
        return tower((photo - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[0]


@pytest.mark.parametrize(("size", "height", "width"), [(SIZE, 128, 96), (96, 128, 128), (64, 64, 128)])
def test_the_mean_of_the_words_is_the_towers_embedding(
    make: Any, tower: Any, size: int, height: int, width: int
) -> None:
    photo = pixels(height, width)
    backbone = make(size)
    words = backbone(normalised(photo)[None])["words"][0]
    seen = (height * size // SIZE, width * size // SIZE)
    assert words.shape == (116, seen[0] // 32, seen[1] // 32)
    expected = embedding(tower, photo, seen)
    # Colours go through two normalisations, so the last digits differ.
    torch.testing.assert_close(words.mean(dim=(1, 2)), expected, atol=1e-3 * float(expected.norm()), rtol=0)
    red_for_blue = embedding(tower, photo.flip(0), seen)
    assert F.cosine_similarity(expected, red_for_blue, dim=0) < 0.99
    assert words_scale(size, SIZE) == size / SIZE / 32


def test_features_are_those_of_the_detection_network(make: Any) -> None:
    backbone = make()
    x = torch.stack([normalised(pixels(96, 128, seed)) for seed in range(2)])
    features = backbone(x)
    expected = backbone.detection(x)
    assert list(features) == list(backbone.output_shape()) == [*expected, "words"]
    for name, feature in expected.items():
        assert torch.equal(features[name], feature)
    shape = backbone.output_shape()["words"]
    assert (shape.channels, shape.stride) == (116, 32)
    assert backbone.size_divisibility == 32


def test_photos_of_a_batch_do_not_meet(make: Any, tower: Any) -> None:
    """Smaller photos of a batch are filled up with zeros, which are the detector's mean colour."""
    backbone = make(64)
    photos = [pixels(128, 128, 1), pixels(128, 64, 2)]
    batch = torch.zeros(2, 3, 128, 128)
    batch[0], batch[1, :, :, :64] = (normalised(photo) for photo in photos)
    features = backbone(batch)
    filled = torch.tensor(MEAN).flip(0)[:, None, None].repeat(1, 128, 128)
    filled[:, :, :64] = photos[1]
    for number, photo in enumerate((photos[0], filled)):
        expected = embedding(tower, photo, (64, 64))
        found = features["words"][number].mean(dim=(1, 2))
        torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.norm()), rtol=0)
        for name, feature in backbone(batch[number : number + 1]).items():
            torch.testing.assert_close(features[name][number], feature[0], atol=1e-4, rtol=1e-4)
    # Sides that are no multiples of 32 for the tower are filled up as well.
    assert make(96)(torch.zeros(1, 3, 64, 128))["words"].shape[2:] == (2, 3)
    assert make(32)(torch.zeros(1, 3, 32, 128))["words"].shape[2:] == (1, 1)


def test_nothing_learns(make: Any) -> None:
    backbone = make().train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    x = normalised(pixels(64, 128))[None].requires_grad_(True)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = backbone(x)
    assert not any(feature.requires_grad for feature in features.values())
    for name, value in backbone.state_dict().items():  # the running means of batch-norm, too
        assert torch.equal(value, before[name]), name
    trained = features["words"]
    torch.testing.assert_close(trained, backbone.eval()(x)["words"])


def test_half_precision(make: Any) -> None:
    """Weights in half precision give the same features up to its three digits; only a GPU calculates in it."""
    x = normalised(pixels(64, 128))[None]
    backbone = make()
    expected = backbone(x)
    state = {name: value.half() for name, value in backbone.state_dict().items()}
    halved = make()
    halved.load_state_dict(state)
    for name, feature in backbone_features(halved, x, half_precision=True).items():
        assert feature.dtype == torch.float32
        assert F.cosine_similarity(feature.flatten(), expected[name].flatten(), dim=0) > 0.999, name
    with torch.autocast("cpu", dtype=torch.bfloat16):
        words = backbone(x)["words"].float()
    assert F.cosine_similarity(words.flatten(), expected["words"].flatten(), dim=0) > 0.99


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"TRUNK": "resnet50"}, "MODEL.WORDS.TRUNK is 'resnet50', no EfficientNet of timm"),
        ({"CHANNELS": [4, 8, 16]}, "MODEL.WORDS.CHANNELS is [4, 8, 16]; expected four numbers, each twice"),
        ({"CHANNELS": [3, 6, 12, 24]}, "the first one even"),
        ({"CHANNELS": [4, 8, 16, 16]}, "each twice the one before"),
    ],
)
def test_mistakes(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_backbone(configuration(**changed))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_colours_in_another_order(make: Any) -> None:
    cfg = configuration(SEEN_CLASSES=4, CHANNELS=[4, 8, 16, 32], SIZE=SIZE)
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = MEAN[::-1], STD[::-1]
    of_rgb, of_bgr = build_backbone(cfg).eval(), make()
    of_rgb.load_state_dict(of_bgr.state_dict())
    x = normalised(pixels(64, 128))[None]
    expected = of_bgr(x)
    for name, feature in of_rgb(x.flip(1)).items():
        torch.testing.assert_close(feature, expected[name], atol=1e-5, rtol=1e-4)
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(UserError, match=r"INPUT\.FORMAT is 'L'; .* takes RGB or BGR"):
        build_backbone(cfg)
