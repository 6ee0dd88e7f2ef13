"""Masks in photos, one at a time, are Detectron2's; pictures of them too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from pycocotools import mask as run_lengths

import pomp_det.box_masks
from pomp_det.box_masks import BoxMaskDetector, encode_masks, paste_masks, with_box_masks
from pomp_det.oracle import ORACLES, OracleDetector
from pomp_det.photo_detections import coco_rows
from pomp_det.pictures import draw_detections

from ..support.tensor_memory import LiveTensors

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


def test_words_of_one_box_share_its_run_lengths(detections: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    names = torch.tensor([0, 1, 0, 3, 1, 3, 0, 4])
    several = detections[names]
    several.box_masks[-2] = detections.box_masks[5]  # the same box with another mask
    expected = [encode_masks(several[row : row + 1])[0] for row in range(len(several))]
    encoded: list[Any] = []
    encode = run_lengths.encode
    monkeypatch.setattr(pomp_det.box_masks.run_lengths, "encode", lambda mask: encoded.append(mask) or encode(mask))
    found = encode_masks(several)
    assert found == expected
    assert len(encoded) == 5
    assert len({id(rle) for rle in found}) == len(names)  # each may be changed alone


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


def test_masks_on_a_gpu_are_pasted_there_by_detectron2(detections: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode_masks(detections)
    monkeypatch.setattr(Boxes, "device", property(lambda boxes: torch.device("cuda")))
    given = []
    paste = pomp_det.box_masks.paste_masks_in_image
    monkeypatch.setattr(
        pomp_det.box_masks, "paste_masks_in_image", lambda *pasted: given.append(len(pasted[0])) or paste(*pasted)
    )
    assert encode_masks(detections) == encoded
    assert given == [1] * len(detections)


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


def examples(height: int, width: int) -> list[dict[str, Any]]:
    """Two photos with ground truth; the first is asked for in the given size."""
    generator = torch.Generator().manual_seed(7)
    photos = [torch.randint(0, 256, (3, *size), generator=generator).float() for size in ((96, 128), (64, 96))]
    corners = torch.cartesian_prod(torch.arange(0.0, 64, 8), torch.arange(0.0, 64, 8))
    boxes = torch.cat([torch.cat([corners, corners + side], dim=1) for side in (16, 32)])
    truth = [Instances(photo.shape[1:], gt_boxes=Boxes(boxes.clone())) for photo in photos]
    for instances in truth:
        instances.gt_classes = torch.arange(len(boxes)) % 5
    inputs = [{"image": photo, "instances": instances} for photo, instances in zip(photos, truth, strict=True)]
    inputs[0] |= {"height": height, "width": width}
    return inputs


@pytest.mark.parametrize("oracle", ["", *ORACLES])
def test_masks_on_boxes_give_what_masks_in_photos_give(make_tiny: Callable[..., Any], oracle: str) -> None:
    model = make_tiny().eval()
    detector = OracleDetector(model, oracle) if oracle else model
    with torch.no_grad():
        expected = [instances_to_coco_json(found["instances"], 1) for found in detector(examples(180, 251))]
    assert sum(map(len, expected)) > 0
    for found, rows in zip(BoxMaskDetector(detector)(examples(180, 251)), expected, strict=True):
        own = instances_to_coco_json(found["instances"], 1)
        for row, mask in zip(own, encode_masks(found["instances"]), strict=True):
            row["segmentation"] = mask
        assert str(own) == str(rows)


def test_memory_for_many_masks_of_a_large_photo_is_one_mask(make_tiny: Callable[..., Any]) -> None:
    model = with_box_masks(make_tiny().eval())
    assert isinstance(model, BoxMaskDetector)
    one_stage = torch.nn.Linear(1, 1)
    assert with_box_masks(one_stage) is one_stage
    model(examples(96, 128))
    peaks = []
    for side in (96, 2400):
        with LiveTensors() as live:
            found = model(examples(side, side))[0]["instances"]
            encode_masks(found)
        peaks.append(live.peak)
    assert len(found) >= 10
    assert peaks[1] - peaks[0] < 6 * 2400 * 2400  # the run lengths are made outside torch
