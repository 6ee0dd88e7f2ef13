"""What many words of one box share is made once, proposals that cannot become detections are not looked at: the
detections stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Boxes, Instances

from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers

THRESHOLD = 0.1


@pytest.fixture
def model(make_tiny: Callable[..., Any]) -> Any:
    """A tiny detector in double precision, of which many classes pass for each box."""
    made = make_tiny({"MODEL.ROI_HEADS.SCORE_THRESH_TEST": THRESHOLD}).double().eval()
    made.float = lambda: made
    return made


def detected(model: Any, seed: int = 0) -> tuple[dict[str, Any], list[Instances], list[Instances]]:
    """Features of two images, their proposals and their detections with masks."""
    generator = torch.Generator().manual_seed(seed)
    features = {
        f"p{level}": torch.randn(2, 64, 256 // 2**level, 256 // 2**level, generator=generator, dtype=torch.float64)
        for level in range(3, 8)
    }
    proposals = []
    for count in (24, 7):
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 180
        sides = 20 + 50 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
        scores = torch.rand(count, generator=generator, dtype=torch.float64) ** 3
        boxes = Boxes(torch.zeros(0, 4))
        boxes.tensor = torch.cat((corner, corner + sides), dim=1)  # Boxes() would make it single precision
        proposals.append(Instances((256, 256), proposal_boxes=boxes, objectness_logits=scores))
    with torch.no_grad():
        found, _ = model.roi_heads(None, features, proposals)
    return features, proposals, found


def test_a_box_has_one_mask_whatever_it_is_called(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[int] = []
    forward = StandardROIHeads.forward_with_given_boxes
    monkeypatch.setattr(
        StandardROIHeads,
        "forward_with_given_boxes",
        lambda self, features, given: masked.extend(map(len, given)) or forward(self, features, given),
    )
    features, _, found = detected(model)
    for image, made in zip(found, masked, strict=True):
        distinct = {tuple(box) for box in image.pred_boxes.tensor.tolist()}
        assert made == len(distinct) < len(image)
    masks = [image.pred_masks.clone() for image in found]
    with torch.no_grad():  # Detectron2's own: a mask of each detection
        expected = forward(model.roi_heads, features, found)
    for mine, image in zip(masks, expected, strict=True):
        torch.testing.assert_close(mine, image.pred_masks, rtol=1e-9, atol=1e-12)


def test_masks_of_no_detection(model: Any) -> None:
    features, _, _ = detected(model)
    nothing = [Instances((256, 256), pred_boxes=Boxes(torch.zeros(0, 4)), pred_classes=torch.zeros(0).long())] * 2
    with torch.no_grad():
        found = model.roi_heads.forward_with_given_boxes(features, nothing)
    assert [len(image.pred_masks) for image in found] == [0, 0]


def test_masks_of_classes_of_their_own_are_not_shared(make_tiny: Callable[..., Any]) -> None:
    heads = make_tiny({"MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False}).eval().roi_heads
    features = {f"p{level}": torch.randn(1, 64, 64 // 2**level, 64 // 2**level) for level in range(3, 6)}
    boxes = Boxes(torch.tensor([[3.0, 4.0, 40.0, 50.0]] * 2))
    with torch.no_grad():
        (found,) = heads.forward_with_given_boxes(
            features, [Instances((64, 64), pred_boxes=boxes, pred_classes=torch.tensor([0, 1]))]
        )
    assert not torch.equal(*found.pred_masks)


def test_proposals_that_cannot_pass_are_left_out(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, proposals, found = detected(model)
    left = model.roi_heads.last_predictor.promising(proposals)
    assert all(0 < len(few) < len(every) for few, every in zip(left, proposals, strict=True))
    monkeypatch.setattr(DeticFastRCNNOutputLayers, "promising", lambda self, every: every)
    _, _, expected = detected(model)
    for mine, plain in zip(found, expected, strict=True):
        assert len(mine) == len(plain) > 0
        assert mine.pred_classes.tolist() == plain.pred_classes.tolist()
        # Detectron2 keeps the boxes between the stages in single precision.
        torch.testing.assert_close(mine.scores, plain.scores, rtol=1e-5, atol=0)
        torch.testing.assert_close(mine.pred_boxes.tensor, plain.pred_boxes.tensor, rtol=1e-5, atol=1e-3)


def test_all_proposals_count_where_scores_are_not_mixed(make_tiny: Callable[..., Any]) -> None:
    proposals = [Instances((64, 64), objectness_logits=torch.tensor([0.0, 1.0]))]
    for changed in ({"MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE": False}, {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}):
        assert make_tiny(changed).roi_heads.last_predictor.promising(proposals) is proposals
