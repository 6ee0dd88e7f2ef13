"""What makes a number of ours another one than a published one, word by word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pomp_lab.report.columns import columns_of
from pomp_lab.report.comparable import budget_changes, model_of, why_not
from pomp_lab.report.published import load_published
from pomp_lab.report.results import Run
from prompt_core.data.catalog.lookup import classification_entry

TABLES = {table.name: table for table in load_published()}
OPENAI = {"clip": "ViT-B-16-quickgelu", "pretrained": "openai"}
RESNET = {"config": "MODEL:\n  TIMM:\n    BASE_NAME: resnet50_in21k\n"}
LVIS = {"metric": "LVIS AP (federated)", "detections": "300 of an image, over all classes", "images": 19_809}
STUFF = {"metric": "mIoU", "miou_denominator": "union", "images": 5_000}
MASKS = {"config": "MODEL:\n  RESNETS:\n    DEPTH: 101\n  CLIP_ADAPTER:\n    CLIP_MODEL_NAME: ViT-B/16\n"}


def refusal(table: str, dataset: str, metric: str, protocol: dict[str, Any], about: dict[str, Any]) -> str | None:
    numbers = columns_of(dataset, protocol, {metric: 50.0})
    run = Run("run", Path("run"), "run", numbers, settings={"method": "pomp"}, about=about)
    (column,) = numbers
    return why_not(TABLES[table], [c for c in TABLES[table].columns if c.measures(column)], column, [run])


def classification(name: str, **words: Any) -> dict[str, Any]:
    entry = classification_entry(name)
    counts = {"images": entry.test.number, "candidates": entry.classes.number}
    source = f"{name}, published split"
    return {"split": "test", "metric": "top-1 over all images (micro)", **counts, "source": source, **words}


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("imagenet_a", {}, None),
        # These sets have no val of their own, FGVCAircraft has one of as many images.
        ("imagenet_a", {"split": "val"}, None),
        ("fgvc_aircraft", {"split": "val"}, "its split is val, the published one is test"),
        ("imagenet_a", {"images": 7_400, "unreadable": ["x"] * 100}, None),
        ("imagenet_a", {"images": 7_400}, "7,400 test images, the published number has 7,500"),
        ("imagenet_a", {"images": None}, "its number of test images is not stated"),
        ("imagenet_a", {"images": "7,500"}, "its number of test images is not stated"),
        ("imagenet_a", {"candidates": 1_000}, "1,000 classes, the published number has 200"),
        ("imagenet_a", {"namesakes": "merged"}, "classes with the same name count as one"),
        ("imagenet_a", {"namesakes": "none"}, None),
        ("dtd", {"namesakes": "merged"}, None),
        ("dtd", {"source": "dtd, official split"}, "its official split has other test images"),
        # CoOp keeps the official test photos of these.
        ("oxford_pets", {"source": "oxford_pets, official split"}, None),
        ("oxford_pets", {"half": "report"}, "it covers only part of the images (report)"),
        ("dtd", {"metric": None}, "its metric is not stated"),
    ],
)
def test_images_and_classes(name: str, words: dict[str, Any], reason: str | None) -> None:
    refused = refusal("Cross-dataset and cross-domain transfer", name, "top1", classification(name, **words), OPENAI)
    assert refused is None if reason is None else reason in str(refused)


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({}, "its model is not stated"),
        ({"clip": "ViT-B-16-quickgelu"}, "with unknown weights"),
        ({**OPENAI, "pretrained": "laion2b_s34b_b88k"}, "with laion2b_s34b_b88k weights"),
        ({**OPENAI, "clip": "ViT-B-16"}, "its model is ViT-B-16 with OpenAI weights"),
        ({**OPENAI, "clip": "ViT-B-32-quickgelu"}, "its model is ViT-B-32-quickgelu"),
        ({"config": "imagenet21k_vitb16.yaml"}, "its model is not stated"),
        ({"config": "MODEL: [\n"}, "its model is not stated"),
        ({"config": "MODEL: x\n"}, "its model is not stated"),
    ],
)
def test_models(about: dict[str, Any], reason: str) -> None:
    refused = refusal("Cross-dataset and cross-domain transfer", "dtd", "top1", classification("dtd"), about)
    assert reason in str(refused)


def test_a_table_without_a_model_is_not_compared_with() -> None:
    refused = refusal("Cost of tuning on ImageNet-1K", "imagenet", "top1", classification("imagenet"), OPENAI)
    assert refused == "its model is ViT-B-16-quickgelu with OpenAI weights, the published table names none"


def test_the_model_in_a_configuration() -> None:
    config = "MODEL:\n  NAME: RN50-quickgelu\n  PRETRAINED: ''\n"
    assert model_of(Run("a", Path("a"), "a", {}, about={"config": config})) == ("RN50-quickgelu", None)


def test_budgets_are_read_from_commands_of_tables_alone() -> None:
    command = "reproduce.py cross_dataset --rows POMP --output out OPTIM.LR 0.1 METHOD.POMP x PROMPT.N_CTX=4 SEED 3"
    run = Run("a", Path("a"), "a", {}, settings={"method": "pomp"}, about={"command": command})
    assert budget_changes(run) == "OPTIM.LR 0.1 PROMPT.N_CTX 4"
    hand = Run("a", Path("a"), "a", {}, settings={"method": "zero_shot"}, about={"command": command}, hand=True)
    assert budget_changes(hand) == ""
    other = Run("a", Path("a"), "a", {}, about={"command": "evaluate_prompt.py OPTIM.LR 0.1"})
    assert budget_changes(other) == ""
    assert budget_changes(Run("a", Path("a"), "a", {})) == ""


@pytest.mark.parametrize(
    ("words", "about", "reason"),
    [
        ({}, RESNET, None),
        ({"images": 100}, RESNET, "100 images, the published number has 19,809"),
        ({"detections": "100 of an image, over all classes"}, RESNET, "the published ones are 300 of an image"),
        ({"oracle": "box"}, RESNET, "an oracle gives box"),
        ({}, {}, "its MODEL.TIMM.BASE_NAME is not stated, the published one is resnet50_in21k"),
        ({}, {"config": RESNET["config"].replace("50", "18")}, "its MODEL.TIMM.BASE_NAME is resnet18_in21k"),
    ],
)
def test_detectors(words: dict[str, Any], about: dict[str, Any], reason: str | None) -> None:
    refused = refusal("Open-vocabulary LVIS", "lvis_v1_val", "box_AP", {**LVIS, **words}, about)
    assert refused is None if reason is None else reason in str(refused)


@pytest.mark.parametrize(
    ("metric", "words", "about", "reason"),
    [
        ("mIoU", {}, MASKS, None),
        ("mIoU", {"miou_denominator": "ground_truth"}, MASKS, "its mIoU averages over classes with ground truth"),
        ("pACC", {"miou_denominator": "ground_truth"}, MASKS, None),
        ("mIoU", {}, {"config": MASKS["config"].replace("ViT-B/16", "mini")}, "CLIP_MODEL_NAME is mini"),
    ],
)
def test_segmenters(metric: str, words: dict[str, Any], about: dict[str, Any], reason: str | None) -> None:
    dataset = "coco_2017_test_stuff_sem_seg"
    refused = refusal("Segmentation across data sets", dataset, metric, {**STUFF, **words}, about)
    assert refused is None if reason is None else reason in str(refused)
