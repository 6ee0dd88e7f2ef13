"""Regions from a file take the place of proposals: the heads name them, boxes and masks stay what they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2")

from detectron2.structures import Boxes
from PIL import Image
from pycocotools import mask as run_lengths

from pomp_det import build_detector, load_config, set_classifier
from pomp_det.box_masks import encode_masks, with_box_masks
from pomp_det.photo_detections import coco_rows
from pomp_det.predictor import OpenVocabularyPredictor
from pomp_det.task import detection_task
from pomp_engine import run
from prompt_core import UserError

from ..support.detector_run import make_data, tiny_settings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BOXES = [[8.0, 6.0, 40.0, 30.0], [30.0, 20.0, 24.0, 18.0], [1.0, 1.0, 60.0, 44.0]]
SCORES = [0.9, 0.36, 0.6]


def disc(x: int, y: int) -> dict[str, Any]:
    mask = (np.add.outer((np.arange(48) - y) ** 2, (np.arange(64) - x) ** 2) < 80).astype(np.uint8)
    rle = run_lengths.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def regions_file(folder: Path, masks: bool, image_id: Any = 1) -> Path:
    items = [{"image_id": image_id, "bbox": box, "score": score} for box, score in zip(BOXES, SCORES, strict=True)]
    if masks:
        items = [item | {"segmentation": disc(10 + 20 * row, 20)} for row, item in enumerate(items)]
    path = folder / "regions.json"
    path.write_text(json.dumps(items))
    return path


def example(photo: torch.Tensor) -> dict[str, Any]:
    return {"image": photo, "height": 48, "width": 64, "image_id": 1}  # half the size of the image


@torch.no_grad()
def test_heads_name_the_given_boxes(make_tiny: Callable[..., Any], photo: torch.Tensor, tmp_path: Path) -> None:
    everything = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0, "TEST.DETECTIONS_PER_IMAGE": 1000}
    model = make_tiny(everything | {"MODEL.PROPOSALS.FILE": str(regions_file(tmp_path, masks=False))}).eval()
    (found,) = with_box_masks(model)([example(photo)])
    instances = found["instances"]
    assert instances.has("box_masks")  # the mask head's own
    corners = torch.tensor([[8.0, 6, 48, 36], [30.0, 20, 54, 38], [1.0, 1, 61, 45]])
    features = model.features(model.preprocess_image([example(photo)]).tensor)
    maps = [features[name] for name in model.roi_heads.box_in_features]
    pooled = model.roi_heads.box_pooler(maps, [Boxes(corners * 2)])
    probabilities = [
        predictor(head(pooled))[0][:, :-1].sigmoid()
        for head, predictor in zip(model.roi_heads.box_head, model.roi_heads.box_predictor, strict=True)
    ]
    expected = (sum(probabilities) / 3 * torch.tensor(SCORES)[:, None]).sqrt()  # (3, C)
    for box, score, label in zip(
        instances.pred_boxes.tensor, instances.scores, instances.pred_classes.tolist(), strict=True
    ):
        (row,) = ((corners - box).abs().sum(dim=1) < 1e-3).nonzero()[0].tolist()
        torch.testing.assert_close(score, expected[row, label])
    assert len(instances) > 60  # of 90 pairs of region and class; the others are suppressed within their class


@torch.no_grad()
def test_given_masks_come_out_as_they_were(make_tiny: Callable[..., Any], photo: torch.Tensor, tmp_path: Path) -> None:
    model = make_tiny({"MODEL.PROPOSALS.FILE": str(regions_file(tmp_path, masks=True))}).eval()
    given = [disc(10 + 20 * row, 20) for row in range(3)]
    (found,) = with_box_masks(model)([example(photo)])
    instances = found["instances"]
    assert len(instances) == 30
    by_left = {8: 0, 30: 1, 1: 2}
    rows = [by_left[round(box[0])] for box in instances.pred_boxes.tensor.tolist()]
    assert encode_masks(instances) == [given[row] for row in rows]
    assert [entry["segmentation"] for entry in coco_rows(instances)] == [given[row] for row in rows]
    best = instances.scores > instances.scores[12]
    assert encode_masks(instances[best]) == [given[row] for row in rows[:12]]
    (none,) = with_box_masks(model)([example(photo) | {"image_id": 2}])
    assert len(none["instances"]) == 0


def test_predictions_find_regions_by_the_photos_name(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    settings = {"MODEL.PROPOSALS.FILE": str(regions_file(tmp_path, masks=True, image_id="a.jpg"))}
    model = make_tiny(settings)
    cfg = load_config(None, {"INPUT.MIN_SIZE_TEST": 96, **settings})
    predictor = OpenVocabularyPredictor(model, cfg)
    found = predictor(tmp_path / "a.png")
    assert found.pred_masks.shape == (30, 48, 64)
    assert {int(mask.sum()) for mask in found.pred_masks} <= {
        int(run_lengths.area(disc(10 + 20 * row, 20))) for row in range(3)
    }
    with pytest.raises(UserError, match="has no regions of it"):
        predictor.detect(np.zeros((48, 64, 3), np.uint8), name="b.png")


def test_an_evaluation_on_true_boxes_names_them_all(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    make_data(tmp_path, count=3)
    settings = {"MODEL.PROPOSALS.FILE": str(tmp_path / "boxes.json"), "MODEL.RANDOM_WEIGHTS": True}
    cfg = load_config(None, tiny_settings(tmp_path, **settings))
    run.evaluate(detection_task(), cfg)
    document = json.loads((tmp_path / "run/metrics_proposals_given.json").read_text())
    assert document["_protocol"]["tiny"]["proposals"] == "given"
    check_boxes(tmp_path)


def check_boxes(folder: Path) -> None:
    """What was found are the annotated boxes, and all of them."""
    lines = (folder / "run/inference_tiny_proposals_given/predictions/rank_00000.jsonl").read_text().splitlines()
    truth = json.loads((folder / "boxes.json").read_text())["annotations"]
    assert lines
    for line in map(json.loads, lines):
        boxes = {tuple(item["bbox"]) for item in truth if item["image_id"] == line["image_id"]}
        assert {tuple(map(round, item["bbox"])) for item in line["instances"]} == boxes


# --- without any detector

# Of configs/mini/given_regions.yaml: random words of the tiny CLIP's width.
CROPS_BY_TINY_CLIP = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VOCABULARY": "",
    "MODEL.PROMPT": "",
    "MODEL.DISTILLATION_CLIP.NAME": "openai",
    "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": "rand",
    "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 24,
}


@torch.no_grad()
def test_crops_are_named_by_clip_alone(
    tiny_clip: Any, monkeypatch: pytest.MonkeyPatch, photo: torch.Tensor, tmp_path: Path
) -> None:
    monkeypatch.setattr("prompt_core.clip.load_clip", lambda *arguments: tiny_clip)
    changed = CROPS_BY_TINY_CLIP | {
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": 1.0,
        "MODEL.PROPOSALS.FILE": str(regions_file(tmp_path, masks=True)),
    }
    model = build_detector(load_config(CONFIGS / "mini/given_regions.yaml", changed)).eval()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    words = torch.randn(4, 24, generator=torch.Generator().manual_seed(2))
    set_classifier(model, words, list("abcd"))
    image = photo.round()
    (found,) = with_box_masks(model)([example(image)])
    instances = found["instances"]
    assert len(instances) == 12
    embedded = []
    for x, y, w, h in BOXES:
        centre, half = np.array([x + w / 2, y + h / 2]) * 2, np.array([w, h])
        total = torch.zeros(24)
        for factor in (1.0, 1.5):
            (left, top), (right, bottom) = centre - half * factor, centre + half * factor
            rows = slice(max(int(np.floor(top)), 0), min(int(np.ceil(bottom)), 96))
            columns = slice(max(int(np.floor(left)), 0), min(int(np.ceil(right)), 128))
            crop = F.interpolate(image[None, :, rows, columns], size=(32, 32), mode="bicubic", antialias=True)
            total += F.normalize(tiny_clip.model.encode_image((crop.clamp(0, 255) / 255 - 0.5) / 0.5)[0], dim=0)
        embedded.append(F.normalize(total, dim=0))
    logits = 100 * torch.stack(embedded) @ F.normalize(words, dim=1).T
    expected = (
        torch.cat((logits, torch.zeros(3, 1)), dim=1).softmax(dim=1)[:, :-1] * torch.tensor(SCORES)[:, None]
    ).sqrt()
    by_left = {8: 0, 30: 1, 1: 2}
    for box, score, label in zip(
        instances.pred_boxes.tensor.tolist(), instances.scores, instances.pred_classes.tolist(), strict=True
    ):
        torch.testing.assert_close(score, expected[by_left[round(box[0])], label], atol=2e-3, rtol=2e-3)


def test_crops_are_evaluated_without_weights(tiny_clip: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("prompt_core.clip.load_clip", lambda *arguments: tiny_clip)
    make_data(tmp_path, count=2)
    changed = CROPS_BY_TINY_CLIP | {
        "MODEL.ROI_HEADS.NUM_CLASSES": 3,
        "MODEL.PROPOSALS.FILE": str(tmp_path / "boxes.json"),
        "DATASETS.FILES": [["tiny", str(tmp_path / "boxes.json"), str(tmp_path)]],
        "DATASETS.TEST": ["tiny"],
        "OUTPUT_DIR": str(tmp_path / "run"),
    }
    run.evaluate(detection_task(), load_config(CONFIGS / "mini/given_regions.yaml", changed))
    check_boxes(tmp_path)


def test_nothing_is_found_without_a_file(photo: torch.Tensor) -> None:
    changed = {"MODEL.DEVICE": "cpu", "MODEL.VOCABULARY": "", "MODEL.PROMPT": ""}
    changed |= {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": "rand"}
    model = build_detector(load_config(CONFIGS / "mini/given_regions.yaml", changed))
    with pytest.raises(UserError, match=r"name a file in MODEL\.PROPOSALS\.FILE"):
        model.eval()([example(photo)])
    with pytest.raises(UserError, match="is for tests and predictions"):
        model.train()([example(photo)])
