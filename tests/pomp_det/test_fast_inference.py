"""The fast detections are the plain ones: in float64, on every kind of input that the fast way treats specially."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from torchvision.ops import nms

from pomp_det.heads.inference import (
    StageScores,
    best_pairs,
    classwise_nms,
    fast_detections,
    mixed_scores,
    reference_detections,
)

SIZE = (100, 120)


def random_case(
    seed: int, regions: int, classes: int, spread: float = 6.0, stages: int = 3, bias: float | None = None
) -> tuple[list[StageScores], torch.Tensor, torch.Tensor]:
    """Stages, proposal scores and boxes that overlap each other often and the image border sometimes."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight = torch.nn.functional.normalize(normal(8, classes + 1), dim=0)
    weight[:, -1] = 0
    scores = [
        StageScores(spread * normal(regions, 8), weight, None if bias is None else torch.tensor([bias]))
        for _ in range(stages)
    ]
    centre = torch.rand(regions, 2, generator=generator, dtype=torch.float64) * torch.tensor([120.0, 100.0])
    half = 5 + 25 * torch.rand(regions, 2, generator=generator, dtype=torch.float64)
    objectness = torch.rand(regions, generator=generator, dtype=torch.float64)
    return scores, objectness, torch.cat((centre - half, centre + half), dim=1)


def plain(stages: list[StageScores], objectness: Any, boxes: torch.Tensor, *options: Any) -> Any:
    logits = [stage.projected @ stage.weight + (0 if stage.bias is None else stage.bias) for stage in stages]
    column = None if objectness is None else objectness[:, None]
    return reference_detections(mixed_scores([part.sigmoid() for part in logits], column), boxes, SIZE, *options)


def assert_same(fast: Any, expected: Any) -> None:
    (fast, found_rows), (expected, expected_rows) = fast, expected
    assert len(fast) == len(expected)
    assert found_rows.tolist() == expected_rows.tolist()
    assert fast.pred_classes.tolist() == expected.pred_classes.tolist()
    torch.testing.assert_close(fast.scores, expected.scores, rtol=1e-12, atol=0)
    assert torch.equal(fast.pred_boxes.tensor, expected.pred_boxes.tensor)


@pytest.mark.parametrize(
    ("regions", "classes", "threshold", "limit", "chunk"),
    [
        (40, 20, 0.02, 30, 7),
        (40, 20, 0.6, 300, 100),
        (40, 20, 0.0, -1, 8),
        (40, 20, -1.0, -1, 8),
        (60, 150, 0.02, 10, 16),  # 9000 pairs for 10 detections: the budget cuts
        (1, 1, 0.02, 30, 4),
        (0, 5, 0.02, 30, 4),
    ],
)
@pytest.mark.parametrize("mixed", [True, False])
def test_equals_the_reference(
    regions: int, classes: int, threshold: float, limit: int, chunk: int, mixed: bool
) -> None:
    stages, objectness, boxes = random_case(1, regions, classes)
    given = objectness if mixed else None
    options = (threshold, 0.5, limit)
    expected = plain(stages, given, boxes, *options)
    assert_same(fast_detections(stages, given, boxes, SIZE, *options, chunk=chunk), expected)


def test_one_stage_with_bias() -> None:
    stages, objectness, boxes = random_case(2, 30, 12, stages=1, bias=-2.0)
    options = (0.1, 0.5, 20)
    assert_same(fast_detections(stages, objectness, boxes, SIZE, *options), plain(stages, objectness, boxes, *options))


def test_proposals_too_weak_for_the_bar_change_nothing() -> None:
    """Most proposals are far weaker than what the classes seen first reach."""
    stages, objectness, boxes = random_case(7, 80, 200)
    options = (0.001, 0.5, 12)
    expected = plain(stages, objectness**8, boxes, *options)
    assert float(expected[0].scores[-1]) > float((objectness**8).median().sqrt())
    assert_same(fast_detections(stages, objectness**8, boxes, SIZE, *options, chunk=16), expected)


@pytest.mark.parametrize("probability", [0.02, 0.5, 1 - 1e-5])
def test_pairs_next_to_the_threshold(probability: float) -> None:
    """The comparison of logits lets through what it cannot decide; the score decides."""
    threshold, double = 0.3, torch.float64
    logits = torch.logit(torch.tensor(probability, dtype=double)) + torch.linspace(-1e-3, 1e-3, 401, dtype=double)
    stages = [StageScores(torch.ones(2, 1, dtype=double), logits[None])]
    objectness = torch.full((2,), threshold**2 / probability, dtype=double)
    boxes = torch.tensor([[0, 0, 10, 10], [50, 50, 60, 60]], dtype=double)
    expected = plain(stages, objectness, boxes, threshold, 0.5, -1)
    assert 0 < len(expected[0]) < 800
    assert_same(fast_detections(stages, objectness, boxes, SIZE, threshold, 0.5, -1), expected)


def test_ties_keep_the_order_of_classes_and_regions() -> None:
    """Six scores for 40 classes and 24 regions: whatever the limit cuts, it cuts where the reference does."""
    generator = torch.Generator().manual_seed(9)
    _, objectness, boxes = random_case(9, 24, 40)
    boxes[12:] = boxes[:12]
    logits = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)[torch.randint(0, 3, (41,), generator=generator)]
    stages = [StageScores(torch.ones(24, 1, dtype=torch.float64), logits[None])] * 2
    objectness = torch.tensor([0.25, 1.0], dtype=torch.float64)[torch.randint(0, 2, (24,), generator=generator)]
    for limit in (1, 7, 30, 39, 100, -1):
        expected = plain(stages, objectness, boxes, 0.02, 0.5, limit)
        assert_same(fast_detections(stages, objectness, boxes, SIZE, 0.02, 0.5, limit, chunk=8), expected)


def test_more_pairs_are_looked_at_when_suppression_leaves_too_few() -> None:
    """400 regions on one place: a class has one detection, and 18 classes with all their regions settle the result."""
    _, objectness, boxes = random_case(3, 400, 20)
    boxes = boxes[:1].expand(400, 4) + 1e-3 * torch.arange(400, dtype=torch.float64)[:, None]
    weight = torch.stack((torch.linspace(3, -3, 21, dtype=torch.float64), torch.ones(21, dtype=torch.float64)))
    noise = 1e-3 * torch.randn(400, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    stages = [StageScores(torch.stack((torch.ones_like(noise), noise), dim=1), weight)]
    objectness = torch.ones_like(objectness)
    options = (0.02, 0.5, 18)
    pairs = best_pairs(stages, objectness, boxes, 0.02, 18, 5)
    assert pairs.classes.unique().tolist() == list(range(18))
    assert 17 * 400 < len(pairs.scores) < 18 * 400  # of the last class, what is as good as its best
    assert len(pairs.classes[: 4 * 18].unique()) == 1
    detections = fast_detections(stages, objectness, boxes, SIZE, *options, chunk=5)
    assert_same(detections, plain(stages, objectness, boxes, *options))
    assert len(detections[0]) == 18


def test_regions_that_are_not_finite_are_left_out() -> None:
    stages, objectness, boxes = random_case(4, 30, 10)
    boxes[3, 2] = torch.inf
    stages[1].projected[5] = torch.nan
    options = (0.02, 0.5, 50)
    detections = fast_detections(stages, objectness, boxes, SIZE, *options)
    assert_same(detections, plain(stages, objectness, boxes, *options))
    assert not {3, 5} & set(detections[1].tolist())


def test_nothing_passes() -> None:
    stages, objectness, boxes = random_case(5, 30, 10)
    detections, rows = fast_detections(stages, objectness * 0, boxes, SIZE, 0.02, 0.5, 50)
    assert len(detections) == len(rows) == 0
    assert detections.pred_boxes.tensor.shape == (0, 4)


def test_suppression_of_20000_classes_keeps_pixels_apart() -> None:
    """In float32 the offset of class 20,000 would round boxes to whole pixels and change who overlaps whom."""
    generator = torch.Generator().manual_seed(6)
    corner = 1300 * torch.rand(3000, 2, generator=generator)
    boxes = torch.cat((corner, corner + 2 + 2 * torch.rand(3000, 2, generator=generator)), dim=1)
    boxes = torch.cat((boxes, boxes + 0.8))
    classes = torch.randint(19_000, 21_843, (3000,), generator=generator).repeat(2)
    scores = torch.rand(6000, generator=generator)
    expected = torch.cat(
        [
            rows[nms(boxes[rows], scores[rows], 0.5)]
            for rows in ((classes == class_id).nonzero()[:, 0] for class_id in classes.unique())
        ]
    )
    rows_kept = classwise_nms(boxes, scores, classes, 0.5)
    assert sorted(rows_kept.tolist()) == sorted(expected.tolist())
    assert (scores[rows_kept].diff() <= 0).all()


def test_whole_detector(make_tiny: Callable[..., Any], photo: torch.Tensor) -> None:
    results = []
    for fast in (True, False):
        model = make_tiny({"MODEL.ROI_BOX_HEAD.FAST_INFERENCE": fast}).eval()
        with torch.no_grad():
            results.append(model([{"image": photo}])[0]["instances"])
    fast, reference = results
    assert len(fast) == len(reference) > 0
    assert fast.pred_classes.tolist() == reference.pred_classes.tolist()
    torch.testing.assert_close(fast.scores, reference.scores)
    torch.testing.assert_close(fast.pred_boxes.tensor, reference.pred_boxes.tensor)
    assert torch.equal(fast.pred_masks, reference.pred_masks)


def test_one_class_per_proposal(make_tiny: Callable[..., Any], photo: torch.Tensor) -> None:
    model = make_tiny({"MODEL.ROI_HEADS.ONE_CLASS_PER_PROPOSAL": True, "TEST.DETECTIONS_PER_IMAGE": 1000}).eval()
    with torch.no_grad():
        instances = model([{"image": photo}])[0]["instances"]
    assert 0 < len(instances) <= 40  # at most one for each proposal
