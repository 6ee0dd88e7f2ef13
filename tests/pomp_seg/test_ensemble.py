"""ZegFormer's fusion and calibration, by themselves and inside a segmenter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("detectron2")

from pomp_seg import set_classes
from pomp_seg.config import load_config
from pomp_seg.ensemble import EnsembleOptions, calibrate, class_maps, geometric_ensemble, zegformer_fusion
from prompt_core.errors import UserError

Build = Callable[..., Any]
NAMES = ["cat", "sky", "traffic light"]
SEEN = [True, False, True]
ZEGFORMER = {"MODEL.CLIP_ADAPTER.ENSEMBLE": "zegformer"}


@st.composite
def opinions(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float]:
    """Two opinions (Q, C) in float64, flags with at least one seen class, and lambda."""
    queries, classes = draw(st.integers(1, 4)), draw(st.integers(2, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    segment, image = (
        (4 * torch.randn(queries, classes, generator=generator, dtype=torch.float64)).softmax(dim=1) for _ in range(2)
    )
    seen = torch.tensor(draw(st.lists(st.booleans(), min_size=classes, max_size=classes).filter(any)))
    return segment, image, seen, draw(st.floats(0, 1))


def reference(segment: Tensor, image: Tensor, seen: Tensor, weight: float) -> Tensor:
    """The published formulas, one number at a time."""
    result = torch.empty_like(segment)
    members = [number for number, flag in enumerate(seen.tolist()) if flag]
    for query in range(segment.shape[0]):
        average = sum(float(image[query, number]) for number in members) / len(members)
        for number in range(segment.shape[1]):
            embedding, clip = float(segment[query, number]), float(image[query, number])
            result[query, number] = (
                embedding**weight * average ** (1 - weight)
                if number in members
                else embedding ** (1 - weight) * clip**weight
            )
    return result


@settings(max_examples=60, deadline=None)
@given(opinions())
def test_equals_the_formulas(drawn: tuple[Tensor, Tensor, Tensor, float]) -> None:
    torch.testing.assert_close(zegformer_fusion(*drawn), reference(*drawn), rtol=1e-10, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(opinions(), st.integers(0, 10**6))
def test_clip_does_not_choose_among_seen_classes(drawn: tuple[Tensor, Tensor, Tensor, float], seed: int) -> None:
    segment, image, seen, weight = drawn
    shuffled = image.clone()
    members = torch.nonzero(seen)[:, 0]
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))
    shuffled[:, members] = image[:, members[order]]
    fused = zegformer_fusion(segment, image, seen, weight)
    torch.testing.assert_close(zegformer_fusion(segment, shuffled, seen, weight), fused)
    if weight > 1e-3:  # the order that the segment embedding gives
        assert torch.equal(fused[:, seen].argsort(dim=1), segment[:, seen].argsort(dim=1))


@settings(max_examples=60, deadline=None)
@given(opinions())
def test_unseen_classes_and_the_ends_of_lambda(drawn: tuple[Tensor, Tensor, Tensor, float]) -> None:
    segment, image, seen, weight = drawn
    fused = zegformer_fusion(segment, image, seen, weight)
    assert torch.equal(fused[:, ~seen], geometric_ensemble(segment, image, seen, weight)[:, ~seen])
    assert torch.equal(zegformer_fusion(segment, image, None, weight), geometric_ensemble(segment, image, None, weight))
    nothing = torch.zeros_like(seen)
    assert torch.equal(zegformer_fusion(segment, image, nothing, weight), segment ** (1 - weight) * image**weight)
    all_segment, all_image = (zegformer_fusion(segment, image, seen, end) for end in (1.0, 0.0))
    torch.testing.assert_close(all_segment, torch.where(seen, segment, image))
    torch.testing.assert_close(all_image[:, ~seen], segment[:, ~seen])
    torch.testing.assert_close(all_image[:, seen], image[:, seen].mean(dim=1, keepdim=True).expand(-1, int(seen.sum())))


def test_both_groups_are_on_one_scale() -> None:
    """Where neither opinion prefers a class, neither does the fusion."""
    even = torch.full((3, 8), 1 / 8, dtype=torch.float64)
    fused = zegformer_fusion(even, even, torch.tensor([True] * 3 + [False] * 5), 0.7)
    torch.testing.assert_close(fused, even)


@settings(max_examples=60, deadline=None)
@given(opinions(), st.floats(0, 1))
def test_calibration_only_moves_pixels_from_seen_to_unseen(
    drawn: tuple[Tensor, Tensor, Tensor, float], gamma: float
) -> None:
    segment, _, seen, _ = drawn
    masks = torch.rand(len(segment), 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = class_maps(segment, masks)
    before, after = maps.argmax(dim=0), calibrate(maps, seen, gamma).argmax(dim=0)
    moved = before != after
    assert not bool((moved & ~seen[before]).any())
    assert not bool((moved & seen[after]).any())
    assert torch.equal(calibrate(maps, seen, 0.0), maps)
    assert calibrate(maps, None, gamma) is maps
    torch.testing.assert_close((maps - calibrate(maps, seen, gamma))[:, 0, 0], gamma * seen.double())


def test_clip_leaves_a_share_to_no_object_as_the_embedding_does() -> None:
    generator = torch.Generator().manual_seed(0)
    regions, queries = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    exponentials, no_object = regions[:, :-1].exp(), queries[:, -1:].exp()
    fused = EnsembleOptions(kind="zegformer").region_probabilities(regions, queries)
    torch.testing.assert_close(fused, exponentials / (exponentials.sum(dim=1, keepdim=True) + no_object))
    alone = EnsembleOptions(kind="zsseg").region_probabilities(regions, queries)
    torch.testing.assert_close(alone, exponentials / exponentials.sum(dim=1, keepdim=True))


def test_lambda_and_gamma_are_those_of_zegformer() -> None:
    options = EnsembleOptions.from_config(load_config(None, {"MODEL.DEVICE": "cpu"}).MODEL.CLIP_ADAPTER)
    assert (options.zegformer_lambda, options.zegformer_gamma) == (2 / 3, 0.1)


def maps_of(model: Any, seen: list[bool] | None = SEEN) -> Tensor:
    image = torch.randint(0, 256, (3, 40, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    set_classes(model, NAMES, seen)
    with torch.no_grad():
        result: Tensor = model.eval()([{"image": image}])[0]["sem_seg"]
    return result


def test_a_segmenter_fuses_by_its_configuration(tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    from pomp_seg import ensemble

    calls: list[tuple[Tensor, ...]] = []

    def record(*arguments: Any) -> Tensor:
        calls.append(arguments)
        return zegformer_fusion(*arguments)

    monkeypatch.setattr(ensemble, "zegformer_fusion", record)
    changed = {"MODEL.CLIP_ADAPTER.ZEGFORMER_LAMBDA": 0.3, "MODEL.CLIP_ADAPTER.ZEGFORMER_GAMMA": 0.25}
    fused = maps_of(tiny(ZEGFORMER | changed))
    (segment, image, seen, weight) = calls.pop()
    assert (segment.shape, image.shape, seen.tolist(), weight) == ((5, 3), (5, 3), SEEN, 0.3)
    plain = maps_of(tiny(ZEGFORMER | changed | {"MODEL.CLIP_ADAPTER.ZEGFORMER_GAMMA": 0.0}))
    torch.testing.assert_close(plain - fused, 0.25 * torch.tensor(SEEN).float()[:, None, None].expand_as(plain))
    assert float((plain - maps_of(tiny())).abs().max()) > 1e-4  # not ZSSeg's ensemble
    # CLIP's probabilities leave a share to "no object", which ZSSeg's do not.
    assert bool((image.sum(dim=1) < 1 - 1e-6).any())


def test_the_segment_embedding_alone_is_calibrated_too(tiny: Build) -> None:
    alone = {"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE": False}
    expected = maps_of(tiny(alone)) - 0.1 * torch.tensor(SEEN).float()[:, None, None]
    torch.testing.assert_close(maps_of(tiny(ZEGFORMER | alone)), expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MODEL.CLIP_ADAPTER.ENSEMBLE": "zegforner"}, "nearest: 'zegformer'"),
        (ZEGFORMER | {"MODEL.CLIP_ADAPTER.ZEGFORMER_LAMBDA": 1.5}, "expected 0 to 1"),
    ],
)
def test_mistakes_are_named(tiny: Build, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(changed)
