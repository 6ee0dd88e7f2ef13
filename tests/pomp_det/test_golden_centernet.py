"""The proposal head against the published implementation's outputs (golden ``centernet_head``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances
from safetensors.torch import load_file

from pomp_det import load_config
from pomp_det.proposals.centernet import CenterNet
from pomp_det.proposals.targets import batch_targets, make_grid

LEVELS = ["p3", "p4", "p5", "p6", "p7"]
STRIDES = [8, 16, 32, 64, 128]


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    folder = shared / "golden/centernet_head"
    settings = json.loads((folder / "settings.json").read_text())
    return {"cases": load_file(folder / "cases.safetensors"), "settings": settings, "folder": folder}


@pytest.fixture(scope="module")
def centernet(golden: dict[str, Any], shared: Path) -> CenterNet:
    file = shared / "data/published_configs/detic/BoxSup-C2_L_CLIP_R5021k_640b64_4x_pomp.yaml"
    shapes = {name: ShapeSpec(channels=64, stride=stride) for name, stride in zip(LEVELS, STRIDES, strict=True)}
    model = CenterNet(load_config(file), shapes)
    model.load_state_dict(load_file(golden["folder"] / "weights.safetensors"), strict=True)
    return model


def features_of(golden: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: golden["cases"][f"features.{name}"].clone() for name in LEVELS}


def images_of(golden: dict[str, Any]) -> ImageList:
    height, width = golden["settings"]["padded_input_size"]
    return ImageList(torch.zeros(2, 3, height, width), [tuple(size) for size in golden["settings"]["image_sizes"]])


def instances_of(golden: dict[str, Any], case: str) -> list[Instances]:
    result = []
    for boxes, size in zip(golden["settings"]["gt_boxes_xyxy"][case], golden["settings"]["image_sizes"], strict=True):
        instances = Instances(tuple(size))
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        result.append(instances)
    return result


def assert_same_proposals(ours: Instances, boxes: torch.Tensor, scores: torch.Tensor) -> None:
    """As sets: near-ties may swap places."""
    assert len(ours) == len(boxes)
    distance = (ours.proposal_boxes.tensor[:, None] - boxes[None]).abs().amax(dim=2)  # (N, N)
    nearest, which = distance.min(dim=0)
    assert nearest.max() <= 2e-3
    assert len(which.unique()) == len(boxes)
    assert (ours.objectness_logits[which] - scores).abs().max() <= 1e-5


def test_head_outputs(centernet: CenterNet, golden: dict[str, Any]) -> None:
    with torch.no_grad():
        heatmaps, sides = centernet.centernet_head(list(features_of(golden).values()))
    for name, heatmap, side in zip(LEVELS, heatmaps, sides, strict=True):
        torch.testing.assert_close(heatmap, golden["cases"][f"{name}.heatmap_logits"], atol=3e-5, rtol=0)
        torch.testing.assert_close(side, golden["cases"][f"{name}.reg"], atol=3e-5, rtol=0)


def test_proposals_in_inference(centernet: CenterNet, golden: dict[str, Any]) -> None:
    with torch.no_grad():
        proposals, losses = centernet.eval()(images_of(golden), features_of(golden))
    assert losses == {}
    for index, ours in enumerate(proposals):
        cases = golden["cases"]
        assert_same_proposals(ours, cases[f"eval.image{index}.boxes"], cases[f"eval.image{index}.scores"])


@pytest.mark.parametrize("case", ["boxes", "one_empty", "both_empty"])
def test_targets(golden: dict[str, Any], case: str) -> None:
    cases, settings = golden["cases"], golden["settings"]["centernet"]
    shapes = [tuple(cases[f"features.{name}"].shape[2:]) for name in LEVELS]
    grid = make_grid(shapes, STRIDES, settings["SOI"], "cpu")
    boxes = [instances.gt_boxes.tensor for instances in instances_of(golden, case)]
    targets = batch_targets(grid, boxes, settings["HM_MIN_OVERLAP"], settings["MIN_RADIUS"])
    torch.testing.assert_close(targets.heatmap, cases[f"train.{case}.heatmap_target"][:, 0], atol=1e-6, rtol=0)
    assert torch.equal(targets.sides, cases[f"train.{case}.reg_target"])
    assert sorted(targets.positives.tolist()) == sorted(cases[f"train.{case}.pos_inds"].tolist())


@pytest.mark.parametrize("case", ["boxes", "one_empty", "both_empty"])
def test_losses_and_gradients(centernet: CenterNet, golden: dict[str, Any], case: str) -> None:
    cases = golden["cases"]
    features = {name: feature.requires_grad_() for name, feature in features_of(golden).items()}
    centernet.zero_grad()
    proposals, losses = centernet.train()(images_of(golden), features, instances_of(golden, case))
    for name, loss in losses.items():
        torch.testing.assert_close(loss.reshape(1), cases[f"train.{case}.{name}"], rtol=1e-5, atol=1e-6)
    sum(losses.values()).backward()
    gradients = {
        "agn_hm_weight": centernet.centernet_head.agn_hm.weight.grad,
        "bbox_pred_weight": centernet.centernet_head.bbox_pred.weight.grad,
    } | {name: feature.grad for name, feature in features.items()}
    compared = 0
    for name, gradient in gradients.items():
        expected = cases.get(f"train.{case}.grad_{name}")
        if expected is None:
            continue
        compared += 1
        ours = torch.zeros_like(expected) if gradient is None else gradient
        assert (ours - expected).norm() <= 1e-4 * expected.norm(), name
    assert compared >= 2
    if case == "boxes":
        for index, ours in enumerate(proposals):
            prefix = f"train.boxes.image{index}.proposal"
            assert_same_proposals(ours, cases[f"{prefix}_boxes"], cases[f"{prefix}_scores"])
