"""Region features: batches equal the plain reference, and the single pass equals CLIP where the region is the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from hypothesis import given, settings
from hypothesis import strategies as st

from pomp_seg.regions.crops import distinct_masks, expanded_box, mask_boxes
from pomp_seg.regions.encode import RegionEncoder, encode_any_size, resize_positions
from pomp_seg.regions.single_pass import SinglePassEncoder, cover
from prompt_core.clip import Clip, load_clip
from prompt_core.errors import UserError


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 40, 52), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def resnet_clip() -> Clip:
    import open_clip

    torch.manual_seed(0)
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    preprocess = {
        "size": 64,
        "mode": "RGB",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
    model = open_clip.CLIP(24, vision, text)
    return Clip(model, "tiny_resnet", None, preprocess, open_clip.SimpleTokenizer())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    matting=st.booleans(),
    expand=st.sampled_from([1.0, 1.3]),
    fill=st.sampled_from(["mean", "zero"]),
    batch=st.integers(0, 5),
)
def test_batches_equal_one_by_one(
    make_tiny_clip: Callable[..., Any], seed: int, matting: bool, expand: float, fill: str, batch: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randint(0, 256, (3, 30, 44), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(6, 30, 44, dtype=torch.float64)
    for row in range(4):  # two stay empty
        top, left = (int(torch.randint(0, 25, (), generator=generator)) for _ in range(2))
        masks[row, top : top + 9, left : left + 12] = 0.9
    masks[3] = masks[0]  # a duplicate
    masks[1, 0, 0] = 0.4  # below the threshold
    clip = make_tiny_clip(dtype=torch.float64)
    encoder = RegionEncoder(clip, fill, expand, 0.5, matting, batch)
    features, valid = encoder(picture, masks)
    plain, plain_valid = encoder.one_by_one(picture, masks)
    assert valid.tolist() == plain_valid.tolist()
    assert valid.tolist()[4:] == [False, False]
    torch.testing.assert_close(features, plain, atol=1e-6, rtol=0)
    assert torch.equal(features[0], features[-1]) or not bool(valid[:4].all())


def test_equal_regions_go_through_clip_once(tiny_clip: Clip, image: torch.Tensor, monkeypatch: Any) -> None:
    masks = torch.zeros(5, 40, 52)
    masks[0, 3:9, 4:20] = masks[2, 3:9, 4:20] = masks[3, 3:9, 4:20] = 1
    masks[4, 10:, :] = 1
    seen: list[int] = []
    plain = tiny_clip.encode_image
    monkeypatch.setattr(tiny_clip, "encode_image", lambda crops: seen.append(len(crops)) or plain(crops))
    features, valid = RegionEncoder(tiny_clip)(image, masks)
    assert seen == [2]
    assert torch.allclose(RegionEncoder(tiny_clip, batch_size=1)(image, masks)[0], features, atol=1e-6)
    assert seen == [2, 1, 1]
    assert valid.tolist() == [True, False, True, True, True]
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[3])


def test_no_region_at_all(tiny_clip: Clip, image: torch.Tensor) -> None:
    for encoder in (RegionEncoder(tiny_clip), SinglePassEncoder(tiny_clip)):
        features, valid = encoder(image, torch.zeros(3, 40, 52))
        assert features.shape == (0, 24)
        assert not bool(valid.any())


def test_what_the_mask_leaves_out_does_not_matter(tiny_clip: Clip, image: torch.Tensor) -> None:
    masks = torch.zeros(1, 40, 52)
    masks[0, 5:20, 5:30] = 1
    masks[0, 8:12, 9:15] = 0  # a hole
    changed = image.clone()
    changed[:, 8:12, 9:15] = 7
    changed[:, 30:] = 9
    encoder = RegionEncoder(tiny_clip)
    assert torch.equal(encoder(image, masks)[0], encoder(changed, masks)[0])


@pytest.mark.parametrize("first_block", [0, -1])
def test_single_pass_over_everything_is_clip_itself(tiny_clip: Clip, first_block: int) -> None:
    size = tiny_clip.image_size
    image = torch.randint(0, 256, (3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    features, _ = SinglePassEncoder(tiny_clip, first_block=first_block)(image, torch.ones(2, size, size))
    expected = tiny_clip.encode_image((image[None] / 255 - 0.5) / 0.5)
    torch.testing.assert_close(features, expected.expand(2, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["resnet", "mini"])
def test_single_pass_over_everything_in_convolutional_towers(kind: str, resnet_clip: Clip) -> None:
    clip = resnet_clip if kind == "resnet" else load_clip("mini")
    size = clip.image_size
    image = torch.randint(0, 256, (3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    features, _ = SinglePassEncoder(clip)(image, torch.ones(2, size, size))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (clip.image_mean, clip.image_std))
    expected = clip.encode_image(((image / 255 - mean) / std)[None])
    torch.testing.assert_close(features, expected.expand(2, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["transformer", "resnet", "mini"])
def test_single_pass_tells_regions_apart(kind: str, resnet_clip: Clip, tiny_clip: Clip, image: torch.Tensor) -> None:
    clip = {"transformer": tiny_clip, "resnet": resnet_clip, "mini": load_clip("mini")}[kind]
    masks = torch.zeros(3, 40, 52)
    masks[0, :20], masks[1, 20:], masks[2, 18, 30] = 1, 1, 1  # the last one lies between the cells' centres
    features, valid = SinglePassEncoder(clip)(image, masks)
    assert bool(valid.all())
    assert bool(torch.isfinite(features).all())
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    assert float((features[0] - features[1]).abs().max()) > 1e-4
    # A region's feature does not depend on the other regions.
    alone, _ = SinglePassEncoder(clip)(image, masks[1:2])
    torch.testing.assert_close(alone[0], features[1], atol=1e-5, rtol=0)


def test_other_image_towers_are_refused() -> None:
    class Tower(torch.nn.Module):
        pass

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = Tower()

    clip = load_clip("mini")
    clip.model = Model()
    with pytest.raises(UserError, match="REGION_FEATURES to crops"):
        SinglePassEncoder(clip)


@settings(max_examples=50, deadline=None)
@given(
    left=st.integers(0, 40), top=st.integers(0, 30), width=st.integers(1, 12), height=st.integers(1, 10),
    ratio=st.floats(1.0, 2.0),
)  # fmt: skip
def test_grown_boxes_stay_inside_and_hold_the_box(left: int, top: int, width: int, height: int, ratio: float) -> None:
    box = (left, top, min(left + width, 52), min(top + height, 40))
    grown = expanded_box(box, ratio, 40, 52)
    assert 0 <= grown[0] <= box[0] < box[2] <= grown[2] <= 52
    assert 0 <= grown[1] <= box[1] < box[3] <= grown[3] <= 40


def test_a_shrunk_box_keeps_a_pixel(tiny_clip: Clip, image: torch.Tensor) -> None:
    assert expanded_box((3, 5, 4, 6), 0.5, 40, 52) == (3, 5, 4, 6)
    masks = torch.zeros(1, 40, 52)
    masks[0, -1, -1] = 1
    features, _ = RegionEncoder(tiny_clip, expand=0.5)(image, masks)
    assert bool(torch.isfinite(features).all())


def test_boxes_of_masks_are_detectron2s() -> None:
    from detectron2.structures import BitMasks

    masks = torch.rand(40, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.93
    assert {0, 1} < set(masks.flatten(1).sum(dim=1).tolist())
    assert torch.equal(mask_boxes(masks), BitMasks(masks).get_bounding_boxes().tensor)
    assert mask_boxes(masks[:0]).shape == (0, 4)


def test_distinct_masks() -> None:
    masks = torch.tensor([[[1, 0]], [[0, 1]], [[1, 0]]], dtype=torch.bool)
    first, inverse = distinct_masks(masks)
    assert first.tolist() == [0, 1]
    assert inverse.tolist() == [0, 1, 0]
    torch.testing.assert_close(cover(masks[:1], 1, 2), torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize("kind", ["transformer", "resnet", "mini"])
def test_crops_of_any_size(kind: str, resnet_clip: Clip, tiny_clip: Clip) -> None:
    """Published prompt tuning crops to 224 x 244, which is no square."""
    clip = {"transformer": tiny_clip, "resnet": resnet_clip, "mini": load_clip("mini")}[kind]
    size = clip.image_size
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(2, 3, size, size, generator=generator)
    assert torch.equal(encode_any_size(clip, square), clip.encode_image(square))
    wide = torch.randn(2, 3, size, size + size // 2, generator=generator)
    features = encode_any_size(clip, wide)
    assert features.shape == clip.encode_image(square).shape
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    # What lies at the right border counts too: nothing is cut off.
    changed = wide.clone()
    changed[..., -size // 2 :] += 1
    assert float((encode_any_size(clip, changed) - features).abs().max()) > 1e-4


def test_positions_of_the_same_grid_stay_as_they_are() -> None:
    positions = torch.randn(1 + 49, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resize_positions(positions, (7, 7)), positions)
    wider = resize_positions(positions, (7, 8))
    assert wider.shape == (1 + 56, 8)
    assert torch.equal(wider[0], positions[0])
    # A place between two places lies between their embeddings in the middle of the map.
    torch.testing.assert_close(wider[1:].view(7, 8, 8).mean(dim=(0, 1)), positions[1:].mean(dim=0), atol=0.1, rtol=0)
