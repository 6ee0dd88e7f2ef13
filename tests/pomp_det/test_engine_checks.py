"""Bad input is named before any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_det import load_config
from pomp_det.checks import register_configured
from pomp_det.task import detection_task
from pomp_engine import loop, run
from prompt_core import SoftPrompt, TextClassifier, UserError

from ..support.detector_run import CATEGORIES, make_data, tiny_settings

NAMES = [category["name"] for category in CATEGORIES]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    make_data(tmp_path)
    rows = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    TextClassifier(rows, NAMES, {}).save(tmp_path / "classes.safetensors")

    def no_training(*arguments: Any) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(loop, "train", no_training)
    yield tmp_path
    DatasetCatalog.pop("tiny", None)
    MetadataCatalog.pop("tiny", None)


def refused(folder: Path, message: str, **changed: Any) -> None:
    settings = {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(folder / "classes.safetensors")} | changed
    with pytest.raises(UserError, match=message) as error:
        run.train(detection_task(), load_config(None, tiny_settings(folder, **settings)))
    assert "\n" not in str(error.value)


def edit(folder: Path, change: Any) -> None:
    document = json.loads((folder / "boxes.json").read_text())
    change(document)
    (folder / "boxes.json").write_text(json.dumps(document))


def test_a_missing_key_of_the_annotations(folder: Path) -> None:
    edit(folder, lambda document: document["annotations"][2].pop("bbox"))
    refused(folder, r"annotations\[2\] has no 'bbox'")


def test_boxes_outside_the_image_and_of_no_size(folder: Path) -> None:
    def outside(document: Any) -> None:
        document["annotations"][0]["bbox"] = [70, 10, 5, 5]

    edit(folder, outside)
    refused(folder, r"boxes cannot be used \(1 boxes dropped \(outside the image\): annotation 1 of image 1")

    def flat(document: Any) -> None:
        document["annotations"][0]["bbox"] = [7, 10, 0, 5]

    edit(folder, flat)
    refused(folder, r"zero size")


def test_a_category_that_the_classifier_lacks(folder: Path) -> None:
    def rename(document: Any) -> None:
        document["categories"][1]["name"] = "tea pot"

    edit(folder, rename)
    refused(folder, r"data set 'tiny': 1 of 3 categories are missing from the classifier, the first is 'tea pot'")


def test_categories_in_another_order(folder: Path) -> None:
    def swap(document: Any) -> None:
        first, second = document["categories"][:2]
        first["name"], second["name"] = second["name"], first["name"]

    edit(folder, swap)
    refused(folder, r"category 'toy car' is number 1 there and 2 in the classifier")


def test_another_number_of_classes(folder: Path) -> None:
    np.save(folder / "four.npy", np.ones((4, 24), np.float32))
    changed = {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(folder / "four.npy"), "MODEL.ROI_HEADS.NUM_CLASSES": 4}
    refused(folder, "data set 'tiny' has 3 categories, the classifier 4 classes", **changed)


def test_a_class_matrix_of_another_width(folder: Path) -> None:
    np.save(folder / "wide.npy", np.ones((3, 30), np.float32))
    wide = {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(folder / "wide.npy")}
    refused(folder, r"class matrix \(3, 30\) .*the detector needs \(classes, 24\)", **wide)


def test_a_class_matrix_of_another_clip_than_the_prompt(folder: Path) -> None:
    """Both are 24 wide, so that nothing but what the files say of themselves can tell."""
    rows = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    TextClassifier(rows, NAMES, {"clip": "ViT-B-32"}).save(folder / "b32.safetensors")
    SoftPrompt(torch.randn(2, 116), metadata={"clip": "mini"}).save(folder / "prompt.safetensors")
    changed = {
        "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(folder / "b32.safetensors"),
        "MODEL.PROMPT": str(folder / "prompt.safetensors"),
        "MODEL.VOCABULARY": ",".join(NAMES),
    }
    refused(folder, r"b32.safetensors was made with CLIP ViT-B-32.*mini", **changed)
    changed |= {"MODEL.VOCABULARY": str(folder / "b32.safetensors")}
    refused(folder, r"b32.safetensors was made with CLIP ViT-B-32.*mini", **changed)


def test_own_data_sets_need_name_annotations_and_photos(folder: Path) -> None:
    refused(folder, r"DATASETS.FILES has the row \['tiny', 'boxes.json'\]; expected",
            **{"DATASETS.FILES": [["tiny", "boxes.json"]]})  # fmt: skip
    refused(folder, "kind 'cocoo' is unknown; nearest: 'coco'",
            **{"DATASETS.FILES": [["tiny", "boxes.json", ".", "cocoo"]]})  # fmt: skip


def test_bad_test_annotations_stop_a_run_before_it_trains(folder: Path) -> None:
    files = [["tiny", str(folder / "boxes.json"), str(folder)], ["later", str(folder / "absent.json"), str(folder)]]
    refused(folder, r"absent.json", **{"DATASETS.FILES": files, "DATASETS.TEST": ["later"]})


def test_a_run_starts_from_the_weights_that_timm_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published files name no weights, and say PRETRAINED; the run's configuration names what was loaded."""
    began: list[str] = []
    monkeypatch.setattr(loop, "train", lambda task, cfg, *arguments: began.append(cfg.MODEL.WEIGHTS))
    timm = {
        "MODEL.BACKBONE.NAME": "build_p67_timm_fpn_backbone",
        "MODEL.TIMM.BASE_NAME": "resnet10t",
        "MODEL.TIMM.PRETRAINED": True,
        "MODEL.FPN.IN_FEATURES": ["layer3", "layer4", "layer5"],
        "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(folder / "classes.safetensors"),
        "DATASETS.TEST": [],
    }
    for changed in ({}, {"MODEL.WEIGHTS": "mine.pth"}, {"MODEL.TIMM.PRETRAINED": False}):
        run.train(detection_task(), load_config(None, tiny_settings(folder, **(timm | changed))))
    assert began == ["timm://resnet10t", "mine.pth", ""]


def test_own_files_follow_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_data(tmp_path)
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    register_configured(load_config(None, {"DATASETS.FILES": [["tiny", "datasets/boxes.json", "datasets"]]}))
    assert len(DatasetCatalog.get("tiny")) == 6
    DatasetCatalog.pop("tiny")
    MetadataCatalog.pop("tiny")
