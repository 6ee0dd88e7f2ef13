"""Small joined data sets: a few hundred COCO photos, and image labels of the generated shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from pomp_det.data.prepare.coco import prepare_coco_small
from pomp_det.data.records import load_image_labels
from pomp_engine.data.derived_files import Outcome
from pomp_lab.shapes.folder import build_shapes
from pomp_lab.shapes.labels import prepare_image_labels
from pomp_lab.shapes.options import ShapesOptions
from prompt_core.errors import UserError


def write(path: Path, image_ids: list[int], masks: bool, first_id: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"width": 60, "height": 40}
    images = [{"id": number, "file_name": f"{number}.jpg", **size} for number in image_ids]
    annotations: list[dict[str, Any]] = []
    for number in image_ids:
        each: dict[str, Any] = {"id": first_id + len(annotations), "image_id": number, "category_id": 1}
        each |= {"bbox": [1, 2, 20, 20], "area": 400, "iscrowd": 0}
        annotations.append(each | ({"segmentation": [[1, 2, 21, 2, 21, 22]]} if masks else {}))
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    path.write_text(json.dumps(document))


def make_folders(root: Path) -> None:
    for folder, split, first in (("coco128", "train", 1), ("coco128_val", "val", 11)):
        annotations = root / folder / "annotations"
        write(annotations / f"instances_{split}2017_boxes.json", [first, first + 1, first + 2], masks=False)
        write(annotations / f"instances_{split}2017_masks.json", [first, first + 1], masks=True)
    for split, first in (("train", 21), ("val", 31)):
        write(root / f"coco_more/annotations/instances_{split}2017.json", [first, first + 1], masks=True)


def test_photos_of_three_folders_are_joined(tmp_path: Path) -> None:
    make_folders(tmp_path)
    assert set(prepare_coco_small(tmp_path).values()) == {Outcome.WRITTEN}
    assert set(prepare_coco_small(tmp_path).values()) == {Outcome.UP_TO_DATE}
    train = json.loads((tmp_path / "coco_small/instances_train.json").read_text())
    assert [image["file_name"] for image in train["images"]] == [
        "coco128/train2017/1.jpg", "coco128/train2017/2.jpg", "coco128/train2017/3.jpg",
        "coco_more/train2017/21.jpg", "coco_more/train2017/22.jpg",
    ]  # fmt: skip
    # The third photo has its box without a mask; every annotation has an id of its own.
    assert {each["image_id"] for each in train["annotations"] if "segmentation" not in each} == {3}
    assert sorted(each["id"] for each in train["annotations"]) == [1, 2, 3, 4, 5]
    masked = json.loads((tmp_path / "coco_small/instances_val_masks.json").read_text())
    assert [image["id"] for image in masked["images"]] == [11, 12, 31, 32]
    assert all("segmentation" in each for each in masked["annotations"])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    make_folders(tmp_path)
    (tmp_path / "coco_more/annotations/instances_val2017.json").unlink()
    with pytest.raises(UserError, match=r"coco_more/annotations/instances_val2017\.json does not exist"):
        prepare_coco_small(tmp_path)


def test_pictures_of_single_shapes_carry_their_class(tmp_path: Path) -> None:
    options = ShapesOptions(
        classes=12, classification_classes=12, scenes=3, val_scenes=2, scene_size=96, val_images_per_class=2
    )
    build_shapes(tmp_path / "shapes", options)
    path, outcome = prepare_image_labels(tmp_path / "shapes")
    assert outcome == Outcome.WRITTEN
    assert prepare_image_labels(tmp_path / "shapes")[1] == Outcome.UP_TO_DATE
    records, vocabulary, problems = load_image_labels(path, tmp_path / "shapes/classification/val")
    assert len(records) == 24
    assert not problems.counts
    for record in records:
        (label,) = record["pos_category_ids"]
        assert Path(record["file_name"]).parent.name == vocabulary.names[label].replace(" ", "_")
    assert set(vocabulary.frequency or ()) >= {"r"}
    (tmp_path / "shapes/shapes.json").unlink()
    with pytest.raises(UserError, match=r"make_shapes\.py"):
        prepare_image_labels(tmp_path / "shapes")
