"""The best class of each pixel is that of all scores, which are never in memory together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("detectron2")

from pomp_seg import load_config, set_classes
from pomp_seg.best_classes import BestClasses, PixelScores, best_classes
from pomp_seg.evaluation.evaluator import label_map
from pomp_seg.predictor import OpenVocabularySegmenter, counts_and_sums

from ..support.segmenter import TINY
from ..support.tensor_memory import LiveTensors

TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
PER_PIXEL = {
    "MODEL.META_ARCHITECTURE": "ZeroShotPerPixelModel",
    "MODEL.SEM_SEG_HEAD.NAME": "ZeroPerPixelBaselineHead",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 116,
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT": 2.0,
}
KINDS: dict[str, dict[str, Any]] = {
    "proposals": {},
    "half precision": {"FP16": True},
    "fine edges": {"MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": True},
    "ZegFormer": {"MODEL.CLIP_ADAPTER.ENSEMBLE": "zegformer"},
    "embedding alone": {"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE": False},
    "closed": {"MODEL.META_ARCHITECTURE": "MaskFormer", "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead"},
    "per pixel": PER_PIXEL,
    "per pixel with CLIP": PER_PIXEL | {"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT": 0.7},
}


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(2, 7), st.integers(2, 9)),
    st.one_of(st.tuples(*[st.integers(1, 70)] * 2), st.tuples(*[st.integers(60, 90)] * 2)),
    st.sampled_from(TYPES),
    st.sampled_from([None, 0.1]),
    st.integers(0, 10**6),
)
def test_it_is_the_first_of_the_greatest_of_all_scores(
    shape: tuple[int, int, int], size: tuple[int, int], kind: torch.dtype, gamma: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = (torch.randint(0, 9, shape, generator=generator) / 8).to(kind)  # with ties
    seen = torch.rand(shape[0], generator=generator) < 0.5
    scores = PixelScores(maps, size, None if gamma is None else gamma * seen.to(maps))
    before = maps.clone()
    labels, best = scores.best()
    expected = torch.nn.functional.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    if gamma is not None:
        expected = expected - gamma * seen.to(maps)[:, None, None]
    assert torch.equal(scores.all(), expected)
    assert torch.equal(labels.long(), expected.argmax(dim=0))
    assert torch.equal(best, expected.max(dim=0).values)
    assert torch.equal(maps, before)


@pytest.mark.parametrize("changed", KINDS.values(), ids=KINDS)
def test_an_evaluation_gets_the_best_of_the_scores_of_every_model(
    tiny: Callable[..., Any], changed: dict[str, Any]
) -> None:
    model = tiny(changed, seed=1).eval()
    with torch.no_grad():
        model.sem_seg_head.pixel_decoder.mask_features.weight.mul_(100)
        if not hasattr(model, "clip_adapter"):
            model.sem_seg_head.predictor.class_embed.weight.mul_(100)
            model.sem_seg_head.predictor.query_embed.weight.mul_(100)
    if hasattr(model, "clip_adapter"):
        set_classes(model, ["cat", "sky", "tree", "traffic light", "road"], [True, False, True, False, False])
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(2, 3, 5, 6, generator=generator)
    images = (255 * torch.nn.functional.interpolate(blocks, size=(60, 78))).to(torch.uint8)
    batch = [{"image": images[0], "height": 90, "width": 117}, {"image": images[1]}]
    with torch.no_grad():
        expected = [label_map(output["sem_seg"]) for output in model(batch)]
    found = [label_map(output["sem_seg"]) for output in BestClasses(model)(batch)]
    assert [labels.shape for labels in found] == [(90, 117), (60, 78)]
    assert any(len(np.unique(labels)) > 1 for labels in expected)
    for labels, those in zip(found, expected, strict=True):
        assert (labels == those).all()


def test_sums_are_those_of_all_pixels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 7, (50, 61), generator=generator, dtype=torch.int32)
    best = torch.rand(50, 61, generator=generator)
    whole = counts_and_sums(labels, best, 9)
    monkeypatch.setattr("pomp_seg.predictor.AT_ONCE", 100)
    assert all(map(torch.equal, counts_and_sums(labels, best, 9), whole))
    assert whole[0].tolist() == np.bincount(labels.flatten(), minlength=9).tolist()
    expected = torch.zeros(9, dtype=torch.float64).index_add_(0, labels.flatten(), best.flatten().double())
    assert torch.equal(whole[1], expected)


def test_memory_for_a_photo_of_12_megapixels_is_a_few_bytes_for_each_pixel(tiny: Callable[..., Any]) -> None:
    small = {"INPUT.MIN_SIZE_TEST": 48, "INPUT.MAX_SIZE_TEST": 100, "DATASETS.TRAIN": [], "DATASETS.TEST": []}
    segmenter = OpenVocabularySegmenter(tiny({}, seed=1), load_config(None, TINY | small))
    segmenter.set_vocabulary([f"thing {number}" for number in range(8)])
    photo = np.zeros((3000, 4000, 3), dtype=np.uint8)
    segmenter(photo[:100, :150])  # text features are made once
    with LiveTensors() as live:
        segmenter(photo)
    # Labels and best scores, one class's scores and a comparison: 13 bytes a pixel. Two classes' scores were 40.
    assert photo.size / 3 * 8 < live.peak < photo.size / 3 * 14


def test_memory_does_not_grow_with_classes() -> None:
    peaks = []
    for classes in (4, 30):
        maps = torch.rand(classes, 8, 8)
        with LiveTensors() as live:
            best_classes(maps, (1200, 1600))
        peaks.append(live.peak)
    assert peaks[1] < 1.1 * peaks[0] < 1.1 * 14 * 1200 * 1600
