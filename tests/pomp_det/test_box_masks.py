"""Masks in photos, one at a time, are Detectron2's; pictures of them too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from pycocotools import mask as run_lengths

import pomp_det.box_masks
from pomp_det.box_masks import encode_masks, paste_masks
from pomp_det.photo_detections import coco_rows
from pomp_det.pictures import draw_detections

SIZE = (90, 120)


@pytest.fixture
def detections() -> Instances:
    """Boxes of every kind: inside, at each edge, thin, as large as the photo."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(12, 2, 2, generator=generator) * torch.tensor([120.0, 90.0])
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    special = [[0, 0, 120, 90], [0, 0, 3.2, 4.7], [117.3, 80.1, 120, 90], [50, 20.4, 50.3, 70], [7, 7, 8, 8]]
    boxes = torch.cat([boxes, torch.tensor(special)])
    found = Instances(SIZE, pred_boxes=Boxes(boxes), box_masks=torch.rand(len(boxes), 28, 28, generator=generator))
    found.box_masks[3] = 0.0
    found.scores = torch.linspace(1, 0.1, len(boxes))
    found.pred_classes = torch.arange(len(boxes)) % 3
    return found


@pytest.mark.parametrize("at_once", [1 << 20, 700, 1])
def test_masks_are_those_of_detectron2(detections: Instances, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(pomp_det.box_masks, "AT_ONCE", at_once)
    sizes = []
    sample = torch.nn.functional.grid_sample
    monkeypatch.setattr(
        torch.nn.functional,
        "grid_sample",
        lambda mask, grid, **o: sizes.append(grid.numel() // 2) or sample(mask, grid, **o),
    )
    pasted, encoded = paste_masks(detections), encode_masks(detections)
    assert max(sizes) <= max(at_once, SIZE[0])  # whatever the photo's size, besides one column
    expected = paste_masks_in_image(detections.box_masks, detections.pred_boxes, SIZE)
    assert expected.any(dim=2).any(dim=1).sum() > 12
    assert torch.equal(pasted, expected)
    for rle, mask in zip(encoded, expected, strict=True):
        assert (run_lengths.decode(rle) == mask.numpy()).all()


def test_area_is_that_of_the_mask_where_there_is_one(detections: Instances) -> None:
    masks = paste_masks(detections)
    assert [row["area"] for row in coco_rows(detections)] == masks.flatten(1).sum(dim=1).tolist()
    detections.remove("box_masks")
    assert [row["area"] for row in coco_rows(detections)] == pytest.approx(detections.pred_boxes.area().tolist())


def test_pictures_are_those_of_all_masks_at_once(detections: Instances) -> None:
    sv = pytest.importorskip("supervision")
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    found = sv.Detections(
        detections.pred_boxes.tensor.numpy(), paste_masks(detections).numpy(), class_id=detections.pred_classes.numpy()
    )
    scene = sv.MaskAnnotator(opacity=0.4).annotate(photo[:, :, ::-1].copy(), found)
    scene = sv.BoxAnnotator(thickness=2).annotate(scene, found)
    labels = [f"{'abc'[label]} {score:.2f}" for label, score in zip(found.class_id, detections.scores, strict=True)]
    scene = sv.LabelAnnotator(text_scale=0.4, text_padding=3).annotate(scene, found, labels)
    drawn = draw_detections(photo, coco_rows(detections), "abc")
    assert np.abs(drawn.astype(int) - scene[:, :, ::-1]).max() <= 1
