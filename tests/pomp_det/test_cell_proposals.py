"""Boxes of a detection network's cells, decoded exactly, without their classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("detectron2")

from detectron2.structures import Boxes, ImageList
from torchvision.ops import box_iou

from pomp_det.config import load_config
from pomp_det.proposals.cells import CellProposals
from pomp_engine.backbones.nanodet import LEVELS, SIDE_BINS
from prompt_core import UserError

from ..support.region_words import SEEN, cell_width

SIZE = (64, 96)


def cells(seed: int = 0, images: int = 1, spread: float = 2.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"cells{level}": spread
        * torch.randn(images, cell_width(), SIZE[0] // 2**level, SIZE[1] // 2**level, generator=generator)
        for level in LEVELS
    }


def photos(images: int = 1, size: tuple[int, int] = SIZE) -> ImageList:
    return ImageList(torch.zeros(images, 3, *SIZE), [size] * images)


def make(threshold: float = 0.3, nms: float = 1.0, per_level: int = 1000, limit: int = 1000) -> CellProposals:
    return CellProposals(
        num_classes=SEEN, score_threshold=threshold, nms_threshold=nms, limit_per_level=per_level, limit=limit
    )


def plain_boxes(features: dict[str, Tensor], threshold: float) -> list[tuple[float, list[float]]]:
    """Score and box of every cell that is likely enough, in Python's numbers, by falling score."""
    found = []
    for level in LEVELS:
        stride, maps = 2**level, features[f"cells{level}"][0].double()
        for row in range(maps.shape[1]):
            for column in range(maps.shape[2]):
                cell = maps[:, row, column].tolist()
                score = max(1 / (1 + math.exp(-logit)) for logit in cell[:SEEN])
                if score <= threshold:
                    continue
                lengths = []
                for side in range(4):
                    bins = [math.exp(value) for value in cell[SEEN + side * SIDE_BINS :][:SIDE_BINS]]
                    lengths.append(stride * sum(place * weight for place, weight in enumerate(bins)) / sum(bins))
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                left, top, right, bottom = x - lengths[0], y - lengths[1], x + lengths[2], y + lengths[3]
                inside = [max(left, 0), max(top, 0), min(right, SIZE[1]), min(bottom, SIZE[0])]
                if inside[0] < inside[2] and inside[1] < inside[3]:
                    found.append((score, inside))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.9])
def test_boxes_are_those_of_a_plain_loop(threshold: float) -> None:
    features = cells()
    (found,), losses = make(threshold)(photos(), features)
    expected = plain_boxes(features, threshold)
    assert len(found) == len(expected) > 0
    assert losses == {}
    torch.testing.assert_close(found.objectness_logits, torch.tensor([score for score, _ in expected]))
    torch.testing.assert_close(
        found.proposal_boxes.tensor, torch.tensor([box for _, box in expected]), atol=1e-3, rtol=1e-5
    )


def test_suppression_and_limits() -> None:
    features = cells(1)
    (every,), _ = make()(photos(), features)
    (few,), _ = make(limit=5)(photos(), features)
    assert torch.equal(few.proposal_boxes.tensor, every.proposal_boxes.tensor[:5])
    for level in LEVELS:  # short sides, so that some boxes stay inside the photo
        features[f"cells{level}"][:, SEEN::SIDE_BINS] += 4
    (apart,), _ = make(nms=0.3)(photos(), features)
    assert 1 < len(apart) < len(every)
    boxes = apart.proposal_boxes.tensor
    inside = boxes[((boxes > 0) & (boxes < boxes.new_tensor([SIZE[1], SIZE[0]] * 2))).all(dim=1)]  # not clipped
    assert len(inside) > 1
    assert float(box_iou(inside, inside).fill_diagonal_(0).max()) <= 0.3
    (levels,), _ = make(per_level=3)(photos(), features)
    assert len(levels) == 3 * len(LEVELS)


def test_images_of_a_batch_and_training() -> None:
    features = cells(2, images=2)
    generator = make()
    together, _ = generator(photos(2), features, [None, None])  # type: ignore[list-item]
    for number, found in enumerate(together):
        alone = {name: value[number : number + 1] for name, value in features.items()}
        (expected,), _ = generator(photos(), alone)
        assert torch.equal(found.proposal_boxes.tensor, expected.proposal_boxes.tensor)
        assert found.image_size == SIZE
    assert not list(generator.parameters())
    assert not together[0].objectness_logits.requires_grad


def test_photos_smaller_than_their_batch_get_no_boxes_beyond_them() -> None:
    size = (40, 50)
    (found,), _ = make()(photos(size=size), cells(3))
    boxes: Boxes = found.proposal_boxes
    assert len(boxes) > 0
    assert bool(boxes.nonempty().all())
    assert float(boxes.tensor[:, 0::2].max()) <= 50
    assert float(boxes.tensor[:, 1::2].max()) <= 40


def test_nothing_is_likely_enough() -> None:
    (found,), _ = make(threshold=1.0)(photos(), cells())
    assert len(found) == 0
    assert found.proposal_boxes.tensor.shape == (0, 4)


def test_another_backbone_is_refused() -> None:
    cfg: Any = load_config(None, {"MODEL.PROPOSAL_GENERATOR.NAME": "CellProposals", "MODEL.DEVICE": "cpu"})
    with pytest.raises(UserError, match=r"needs the features cells3, cells4, cells5; the backbone gives p3, p4"):
        CellProposals(cfg, {"p3": None, "p4": None})
