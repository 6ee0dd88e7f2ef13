"""MODEL.DYNAMIC_CLASSIFIER: a training step knows a few classes, and is that of a detector that has only these."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from pomp_det import load_config
from pomp_det.checks import check_class_facts, register_configured
from pomp_det.data.loader import training_records
from pomp_det.heads.class_counts import ClassCounts
from pomp_det.heads.sampled_classes import ClassSampler, SampledClasses
from pomp_det.task import detection_task
from pomp_engine import run
from prompt_core import TextClassifier, UserError

from ..support.detector_run import CATEGORIES, make_data, tiny_settings

DYNAMIC = {
    "MODEL.DYNAMIC_CLASSIFIER": True,
    "MODEL.NUM_SAMPLE_CATS": 9,
    "WITH_IMAGE_LABELS": True,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
    "MODEL.CENTERNET.POST_NMS_TOPK_TRAIN": 8,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 8,
}


def counts_file(folder: Path, counts: list[int], letters: str = "") -> str:
    path = folder / "counts.json"
    letters = letters or "f" * len(counts)
    rows = [{"id": n, "image_count": count, "frequency": letters[n]} for n, count in enumerate(counts)]
    path.write_text(json.dumps(rows))
    return str(path)


def batch(photo: torch.Tensor, kind: str, labels: dict[int, int]) -> list[dict[str, Any]]:
    """Two images with the classes 4 and 17, and 21, or what ``labels`` makes of these."""
    boxes = Instances((96, 128), gt_boxes=Boxes(torch.tensor([[10.0, 10, 90, 80], [40.0, 20, 70, 60]])))
    boxes.gt_classes = torch.tensor([labels[4], labels[17]])
    boxes.gt_masks = BitMasks(torch.ones(2, 96, 128, dtype=torch.bool))
    other = boxes[:1]
    other.gt_classes = torch.tensor([labels[21]])
    instances = [boxes, other] if kind == "box" else [boxes[:0], boxes[:0]]
    ids = [[], []] if kind == "box" else [[labels[4], labels[17]], [labels[21]]]
    return [
        {"image": photo, "instances": image, "ann_type": kind, "pos_category_ids": classes}
        for image, classes in zip(instances, ids, strict=True)
    ]


def losses_and_gradients(model: Any, examples: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    torch.manual_seed(3)  # regions are sampled
    model.zero_grad()
    with EventStorage(0):
        losses = model.train()(examples)
    torch.stack([*losses.values()]).sum().backward()
    return losses, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("kind", "head"),
    [("box", "sigmoid"), ("box", "softmax"), ("box", "c4"), ("image", "sigmoid"), ("image", "softmax_weak")],
)
def test_a_step_is_that_of_a_detector_with_only_these_classes(
    make_tiny: Callable[..., Any], photo: torch.Tensor, tmp_path: Path, kind: str, head: str
) -> None:
    settings = DYNAMIC | {"MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": counts_file(tmp_path, [1] * 30)}
    if "softmax" in head:
        settings |= {"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False, "MODEL.ROI_BOX_HEAD.LEARNED_BACKGROUND": True}
    if head == "softmax_weak":
        settings |= {"MODEL.ROI_BOX_HEAD.SOFTMAX_WEAK_LOSS": True}
    if head == "c4":
        c4 = {"NAME": "CustomRes5ROIHeads", "IN_FEATURES": ["res4"], "IOU_THRESHOLDS": [0.5]}
        settings |= {f"MODEL.ROI_HEADS.{key}": value for key, value in c4.items()}
        settings |= {"MODEL.BACKBONE.NAME": "build_resnet_backbone", "MODEL.RESNETS.OUT_FEATURES": ["res4"]}
        settings |= {"MODEL.PROPOSAL_GENERATOR.NAME": "RPN", "MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE": False}
    dtype = torch.float32 if head == "c4" else torch.float64  # Detectron2's RPN knows one precision
    dynamic = make_tiny(settings).to(dtype)
    ids = torch.tensor([17, 2, 21, 29, 4, 11])
    columns = torch.full((31,), 6)
    columns[ids] = torch.arange(6)
    dynamic.roi_heads.class_sampler = Fixed(SampledClasses(ids, columns))
    fewer = settings | {"MODEL.DYNAMIC_CLASSIFIER": False, "MODEL.ROI_HEADS.NUM_CLASSES": 6}
    static = make_tiny(fewer).to(dtype)
    state = dynamic.state_dict()
    for name, tensor in state.items():
        if name.endswith("zs_weight"):
            state[name] = tensor[:, [*ids.tolist(), -1]]
    static.load_state_dict(state)

    losses, gradients = losses_and_gradients(dynamic, batch(photo.to(dtype), kind, {n: n for n in range(30)}))
    expected = losses_and_gradients(static, batch(photo.to(dtype), kind, {4: 4, 17: 0, 21: 2}))
    assert set(losses) == set(expected[0])
    tolerance = 1e-6 if head == "c4" else 1e-12
    stage = "" if head == "c4" else "_stage2"
    assert losses[f"image_loss{stage}" if kind == "image" else f"loss_cls{stage}"] > 0.01
    assert losses["loss_rpn_cls" if head == "c4" else "loss_mask"] > 0 or kind == "image"
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[0][name], rtol=tolerance, atol=0, msg=name)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e3 * tolerance, atol=tolerance / 10, msg=name)


class Fixed:
    """A sampler that always gives the same classes."""

    def __init__(self, classes: SampledClasses) -> None:
        self.classes = classes

    def sample(self, labels: torch.Tensor, num_classes: int, boxes: bool) -> SampledClasses:
        assert sorted(labels.tolist()) == [4, 17, 21]
        assert num_classes == 30
        return self.classes


def test_classes_are_drawn_by_the_images_of_boxes_and_alike_for_image_labels(tmp_path: Path) -> None:
    """A file of fewer classes is that of the first ones: the others have no boxes and are never drawn for them."""
    path = counts_file(tmp_path, [9, 0, 1, 1, 16, 1, 4, 1], letters="ffffrfff")
    sampler = ClassSampler(4, ClassCounts.read(path, 12, 0.5, more_classes=True))
    held_out = ClassSampler(4, ClassCounts.read(path, 12, 0.5, "r", more_classes=True))
    torch.manual_seed(0)
    labels = torch.tensor([2, 10, 2])
    drawn = {name: torch.zeros(12) for name in ("boxes", "labels", "held out")}
    for _ in range(1000):
        for name, one in (("boxes", sampler), ("labels", sampler), ("held out", held_out)):
            ids, columns = one.sample(labels, 12, boxes=name != "labels")
            assert len(ids) == len(ids.unique()) == 4
            assert ids[:2].tolist() == [2, 10]
            assert columns[ids].tolist() == [0, 1, 2, 3]
            assert (columns == 4).sum() == 9
            drawn[name][ids[2:]] += 1
    # Two of the classes 0, 3, 4, 5, 6, 7 with the weights 3, 1, 4, 1, 2, 1 and without replacement.
    weights = {0: 3.0, 3: 1.0, 4: 4.0, 5: 1.0, 6: 2.0, 7: 1.0}
    total = sum(weights.values())
    for label in range(12):
        first = weights.get(label, 0.0) / total
        others = [weight for other, weight in weights.items() if other != label]
        second = sum(weight / total * weights.get(label, 0.0) / (total - weight) for weight in others)
        assert float(drawn["boxes"][label]) / 1000 == pytest.approx(first + second, abs=0.05)
        assert float(drawn["labels"][label]) / 1000 == pytest.approx(0 if label in (2, 10) else 0.2, abs=0.05)
    assert drawn["held out"][4] == 0
    assert drawn["held out"][0] > drawn["boxes"][0]
    many = sampler.sample(torch.arange(7), 12, boxes=True)
    assert many.ids.tolist() == list(range(7))
    assert len(sampler.sample(labels[:0], 12, boxes=True).ids) == 4


def test_missing_counts_stop_training_only(make_tiny: Callable[..., Any], photo: torch.Tensor, tmp_path: Path) -> None:
    model = make_tiny(DYNAMIC | {"MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(tmp_path / "absent.json")})
    with torch.no_grad():
        detections = model.eval()([{"image": photo}])[0]["instances"]
    assert int(detections.pred_classes.max()) > 9  # all classes are scored
    with pytest.raises(UserError, match=r"DYNAMIC_CLASSIFIER\): .*absent.json"):
        check_class_facts(model)
    labels = {n: n for n in range(30)}
    with EventStorage(0):
        assert model.train()(batch(photo, "image", labels))["image_loss_stage0"] > 0
        with pytest.raises(UserError, match=r"absent.json"):
            model(batch(photo, "box", labels))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True}, "set ROI_BOX_HEAD.USE_FED_LOSS and IGNORE_ZERO_CATS to False"),
        ({"MODEL.ROI_BOX_HEAD.IGNORE_ZERO_CATS": True}, "USE_FED_LOSS and IGNORE_ZERO_CATS to False"),
        ({"MODEL.WITH_CAPTION": True, "MODEL.ROI_BOX_HEAD.ADD_IMAGE_BOX": True}, "does not go with MODEL.WITH_CAPTION"),
        ({"MODEL.NUM_SAMPLE_CATS": 0}, "NUM_SAMPLE_CATS is 0"),
        ({"MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS": False, "WITH_IMAGE_LABELS": False}, "set MODEL.ROI_BOX_HEAD.USE_ZERO"),
    ],
)
def test_options_that_do_not_go_together(make_tiny: Callable[..., Any], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_tiny(DYNAMIC | changed)


def test_a_run_on_boxes_of_the_first_classes_and_labels_of_all(tmp_path: Path) -> None:
    """As LVIS with ImageNet-21K: boxes of 3 classes, image labels of these and 2 more; scored on the boxes."""
    make_data(tmp_path)
    classes = [*CATEGORIES, {"id": 11, "name": "axolotl"}, {"id": 12, "name": "zither"}]
    names = [category["name"] for category in classes]
    TextClassifier(torch.randn(5, 24), names, {}).save(tmp_path / "classes.safetensors")
    photos = json.loads((tmp_path / "boxes.json").read_text())["images"]
    labelled = [image | {"pos_category_ids": [classes[place % 5]["id"]]} for place, image in enumerate(photos)]
    document = {"images": labelled, "annotations": [], "categories": classes}
    (tmp_path / "labels.json").write_text(json.dumps(document))
    row = ["tiny_labels", str(tmp_path / "labels.json"), str(tmp_path), "image_labels"]
    settings = tiny_settings(tmp_path) | {
        "WITH_IMAGE_LABELS": True,
        "MODEL.ROI_HEADS.NUM_CLASSES": 5,
        "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(tmp_path / "classes.safetensors"),
        "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": counts_file(tmp_path, [1, 2, 3]),
        "MODEL.NUM_SAMPLE_CATS": 2,
        "DATASETS.FILES": [["tiny", str(tmp_path / "boxes.json"), str(tmp_path)], row],
        "DATASETS.TRAIN": ["tiny", "tiny_labels"],
        "DATALOADER.SAMPLER_TRAIN": "MultiDatasetSampler",
        "DATALOADER.MULTI_DATASET_GROUPING": True,
        "DATALOADER.DATASET_ANN": ["box", "image"],
        "DATALOADER.DATASET_INPUT_SIZE": [64, 32],
        "SOLVER.MAX_ITER": 4,
    }
    with pytest.raises(UserError, match="'tiny' has 3 categories, the classifier 5 classes"):
        run.train(detection_task(), load_config(None, settings))
    dynamic = settings | {"MODEL.DYNAMIC_CLASSIFIER": True, "OUTPUT_DIR": str(tmp_path / "dynamic")}
    results = run.train(detection_task(), load_config(None, dynamic))
    assert set(results["tiny"]) == {"bbox", "segm"}
    log = [json.loads(line) for line in (tmp_path / "dynamic/log.jsonl").read_text().splitlines()]
    assert log[-1]["total_loss"] > 0
    files = (tmp_path / "dynamic/inference_tiny/predictions").glob("rank_*.jsonl")
    written = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    found = {detection["category_id"] for image in written for detection in image["instances"]}
    assert found
    assert found <= {category["id"] for category in CATEGORIES}  # the detector finds the others too
    classes[1]["name"] = "toy boat"
    (tmp_path / "labels.json").write_text(json.dumps(document | {"categories": classes}))
    register_configured(load_config(None, dynamic))
    with pytest.raises(UserError, match="'tiny_labels' has other classes than 'tiny'"):
        training_records(load_config(None, dynamic))
