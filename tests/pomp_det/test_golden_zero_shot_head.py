"""The box predictor against the published implementation's outputs (golden ``zero_shot_head``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from safetensors.torch import load_file

from pomp_det import load_config
from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from pomp_det.heads.class_losses import federated_classes
from pomp_det.heads.image_labels import image_label_loss

VARIANTS = ["fed", "nofed", "nofed_ignore_zero", "fed_with_bias", "no_norm", "softmax", "nofed_giou"]


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    folder = shared / "golden/zero_shot_head"
    settings = json.loads((folder / "settings.json").read_text())
    weights = load_file(folder / "weights.safetensors")
    return {"cases": load_file(folder / "cases.safetensors"), "settings": settings, "weights": weights}


@pytest.fixture(autouse=True)
def _storage() -> Iterator[None]:
    with EventStorage(0):
        yield


@pytest.fixture(scope="module")
def build(golden: dict[str, Any], shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("zero_shot_head")
    np.save(folder / "classifier.npy", golden["cases"]["classifier"].numpy())
    counts = golden["cases"]["image_count"].tolist()
    categories = [{"id": row + 1, "image_count": count} for row, count in enumerate(counts)]
    (folder / "counts.json").write_text(json.dumps(categories))
    settings = golden["settings"]

    def make(changed: dict[str, Any] | None = None, fast: bool = True) -> DeticFastRCNNOutputLayers:
        box_head = {
            "ZEROSHOT_WEIGHT_PATH": str(folder / "classifier.npy"),
            "ZEROSHOT_WEIGHT_DIM": settings["zs_weight_dim"],
            "CAT_FREQ_PATH": str(folder / "counts.json"),
            "FED_LOSS_NUM_CAT": settings["fed_loss_num_cat"],
            "FAST_INFERENCE": fast,
            **(changed or {}),
        }
        overrides = {f"MODEL.ROI_BOX_HEAD.{key}": value for key, value in box_head.items()} | {
            "MODEL.ROI_HEADS.NUM_CLASSES": settings["num_classes"],
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST": settings["test_score_thresh"],
        }
        name = "BoxSup-C2_L_CLIP_R5021k_640b64_4x_pomp.yaml"
        cfg = load_config(shared / "data/published_configs/detic" / name, overrides)
        predictor = DeticFastRCNNOutputLayers(cfg, ShapeSpec(channels=settings["input_size"]))
        configured = predictor.state_dict()
        weights = {key: value for key, value in golden["weights"].items() if key in configured}
        if (changed or {}).get("NORM_WEIGHT") is False:
            weights.pop("cls_score.zs_weight")  # the stored one is normalised
        for key in ("cls_score.zs_weight", "freq_weight"):
            if key in weights:
                torch.testing.assert_close(configured[key], weights[key], atol=1e-6, rtol=1e-6)
        predictor.load_state_dict(weights, strict=False)
        return predictor

    return make


@pytest.fixture
def proposals(golden: dict[str, Any]) -> list[Instances]:
    cases, settings = golden["cases"], golden["settings"]
    gt_classes = cases["gt_classes"].long().split(settings["proposals_per_image"])
    result = []
    for index, size in enumerate(settings["image_sizes"]):
        instances = Instances(tuple(size))
        instances.proposal_boxes = Boxes(cases[f"image{index}.proposal_boxes"].clone())
        instances.objectness_logits = cases[f"image{index}.proposal_scores"]
        instances.gt_boxes = Boxes(cases[f"image{index}.gt_boxes"])
        instances.gt_classes = gt_classes[index]
        result.append(instances)
    return result


def relative(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return float((ours - expected).norm() / expected.norm())


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_losses_and_gradients(build: Any, golden: dict[str, Any], proposals: Any, variant: str) -> None:
    settings = {v["name"]: v for v in golden["settings"]["variants"]}[variant]
    cases = golden["cases"]
    predictor = build(settings["changed_options"]).train()
    features = cases["features"].clone().requires_grad_()
    logits, deltas = predictor(features)
    tolerance = 5e-4 if variant == "no_norm" else 5e-5
    torch.testing.assert_close(logits, cases[f"{variant}.class_logits"], atol=tolerance, rtol=0)
    torch.testing.assert_close(deltas, cases["box_deltas"], atol=5e-5, rtol=0)
    losses = predictor.losses((logits, deltas), proposals)
    assert set(losses) == {"loss_cls", "loss_box_reg"}
    for name, loss in losses.items():
        torch.testing.assert_close(loss.reshape(1), cases[f"{variant}.{name}"], rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    assert relative(features.grad, cases[f"{variant}.grad_features"]) <= 1e-4
    assert relative(predictor.cls_score.linear.weight.grad, cases[f"{variant}.grad_cls_linear_weight"]) <= 1e-4


def test_federated_classes_are_those_of_the_batch(build: Any, golden: dict[str, Any]) -> None:
    cases = golden["cases"]
    classes = federated_classes(cases["gt_classes"].long(), cases["image_count"].float().sqrt(), 12)
    assert sorted(classes.tolist()) == sorted(cases["fed.fed_classes"].tolist())


def test_other_classifier_at_call_time(build: Any, golden: dict[str, Any]) -> None:
    cases = golden["cases"]
    logits, _ = build()(cases["features"], cases["other_classifier"])
    torch.testing.assert_close(logits, cases["other_classifier.class_logits"], atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", ["max_size", "max_score", "first", "min_loss"])
def test_image_label_losses(build: Any, golden: dict[str, Any], proposals: Any, kind: str) -> None:
    cases, labels = golden["cases"], golden["settings"]["image_labels"]
    predictor = build({"IMAGE_LABEL_LOSS": kind}).train()
    features = cases["features"].clone().requires_grad_()
    predictions = predictor(features)
    losses = predictor.image_label_losses(predictions, proposals, labels)
    torch.testing.assert_close(losses["image_loss"].reshape(1), cases[f"{kind}.image_loss"], rtol=1e-5, atol=0)
    assert losses["loss_cls"] == 0
    assert losses["loss_box_reg"] == 0
    sum(losses.values()).backward()
    assert relative(features.grad, cases[f"{kind}.grad_features"]) <= 1e-4
    expected = {loss["kind"]: loss for loss in golden["settings"]["image_label_losses"]}[kind]
    areas = [proposal.proposal_boxes.area() for proposal in proposals]
    logits = predictions[0].split(golden["settings"]["proposals_per_image"])
    _, chosen = image_label_loss(logits, areas, labels, kind)
    assert torch.cat(chosen).tolist() == expected["selected_proposal_per_label"]


@pytest.mark.parametrize("fast", [True, False])
def test_inference(build: Any, golden: dict[str, Any], proposals: Any, fast: bool) -> None:
    cases = golden["cases"]
    predictor = build(fast=fast).eval()
    with torch.no_grad():
        predictions = (predictor.stage_scores if fast else predictor)(cases["features"])
        decoded = predictor.predict_boxes(predictions, proposals)
        detections, kept = predictor.inference(predictions, proposals)
    for index, (instances, rows) in enumerate(zip(detections, kept, strict=True)):
        torch.testing.assert_close(decoded[index], cases[f"image{index}.decoded_boxes"], atol=1e-3, rtol=0)
        prefix = f"image{index}.det_"
        assert len(instances) == len(cases[f"{prefix}boxes"])
        # A detection is a pair of proposal and class: near-ties may swap places in the list.
        order = {
            pair: place for place, pair in enumerate(zip(rows.tolist(), instances.pred_classes.tolist(), strict=True))
        }
        pairs = zip(cases[f"{prefix}proposal_index"].tolist(), cases[f"{prefix}classes"].tolist(), strict=True)
        places = [order[pair] for pair in pairs]
        torch.testing.assert_close(instances.pred_boxes.tensor[places], cases[f"{prefix}boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(instances.scores[places], cases[f"{prefix}scores"], atol=1e-5, rtol=0)
