"""Bad annotation files are named before training; what training can do without is dropped, counted and listed."""

from __future__ import annotations

import copy
import json
import logging
import math
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from pomp_det.data.annotation_files import check_vocabulary, read_annotation_file
from pomp_det.data.records import load_boxes, load_image_labels
from pomp_det.data.usable_boxes import usable_annotations
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary


def document(boxes: int = 20) -> dict[str, Any]:
    return {
        "images": [
            {"id": 2, "width": 100, "height": 80, "file_name": "b.jpg"},
            {"id": 1, "width": 60, "height": 60, "file_name": "a.jpg"},
        ],
        "annotations": [
            {"id": number + 1, "image_id": 2, "category_id": 7, "bbox": [number, 5, 10, 10], "area": 100, "iscrowd": 0}
            for number in range(boxes)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 4, "name": "dog"}],
    }


def written(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    return path


def without(value: dict[str, Any], part: str, key: str) -> dict[str, Any]:
    del value[part][0][key]
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {key: d[key] for key in ("images", "categories")}, "'annotations' is missing"),
        (lambda d: d | {"images": []}, "lists no images"),
        (lambda d: d | {"categories": []}, "lists no categories"),
        (lambda d: [], "found a list"),
        (lambda d: without(d, "annotations", "bbox"), r"annotations\[0\] has no 'bbox'"),
        (lambda d: without(d, "annotations", "image_id"), r"annotations\[0\] has no 'image_id'"),
        (lambda d: without(d, "annotations", "id"), r"annotations\[0\] has no 'id'"),
        (lambda d: without(d, "images", "width"), r"images\[0\] has no 'width'"),
        (lambda d: without(d, "images", "file_name"), "neither 'file_name' nor 'coco_url'"),
        (lambda d: without(d, "categories", "name"), r"categories\[0\] has no 'name'"),
        (lambda d: d | {"annotations": [{**d["annotations"][0], "category_id": 5}]}, "category_id 5, which is not"),
        (lambda d: d | {"annotations": [{**d["annotations"][0], "image_id": 9}]}, "image_id 9, which is not"),
        (lambda d: d | {"annotations": d["annotations"] * 2}, "annotation id 1 occurs more than once"),
        (lambda d: d | {"images": d["images"] * 2}, "image id 2 occurs more than once"),
        (
            lambda d: d | {"images": [{**d["images"][0], "height": 0}, d["images"][1]]},
            r"images\[0\].height is 0; a whole number of at least 1 is expected",
        ),
    ],
)
def test_what_makes_a_file_unusable_is_named(tmp_path: Path, change: Any, message: str) -> None:
    path = written(tmp_path, change(document()))
    with pytest.raises(UserError, match=message) as caught:
        read_annotation_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_federated_file_needs_its_lists_and_frequencies(tmp_path: Path) -> None:
    value = document()
    with pytest.raises(UserError, match=r"images\[0\] has no 'neg_category_ids'"):
        read_annotation_file(written(tmp_path, value), federated=True)
    for image in value["images"]:
        image |= {"neg_category_ids": [4], "not_exhaustive_category_ids": []}
    with pytest.raises(UserError, match=r"categories\[0\] has no 'frequency'"):
        read_annotation_file(written(tmp_path, value), federated=True)
    for category in value["categories"]:
        category["frequency"] = "r"
    assert read_annotation_file(written(tmp_path, value), federated=True)["categories"]
    value["images"][0]["neg_category_ids"] = [12]
    with pytest.raises(UserError, match="lists category 12 in 'neg_category_ids'"):
        read_annotation_file(written(tmp_path, value), federated=True)
    value["images"][0]["neg_category_ids"] = [4]
    value["categories"][0]["frequency"] = "rare"
    with pytest.raises(UserError, match="frequency 'rare'"):
        read_annotation_file(written(tmp_path, value), federated=True)


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([5, 5, 0, 10], "zero size"),
        ([5, 5, 10, -1], "zero size"),
        ([100, 5, 10, 10], "outside the image"),
        ([-20, 5, 10, 10], "outside the image"),
        ([5, 5, 10], "not four numbers"),
        ([5, 5, math.nan, 10], "not four finite numbers"),
        (["5", 5, 10, 10], "not four finite numbers"),
    ],
)
def test_a_bad_box_is_dropped_counted_and_listed(
    tmp_path: Path, box: list[Any], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    value = document()
    value["annotations"][3]["bbox"] = box
    with caplog.at_level(logging.INFO):
        records, _, problems = load_boxes(written(tmp_path, value), tmp_path)
    assert sum(len(record["annotations"]) for record in records) == 19
    assert problems.counts == {f"boxes dropped ({kind})": 1}
    assert "annotation 4 of image 2" in problems.lines()[0]
    assert "annotation 4 of image 2" in caplog.text


def test_boxes_in_another_format_stop_the_run(tmp_path: Path) -> None:
    value = document()
    for annotation in value["annotations"][:3]:
        annotation["bbox"] = [0, 0, 0, 0]
    with pytest.raises(UserError, match=r"3 of 20 boxes cannot be used .*x, y, width, height in pixels"):
        load_boxes(written(tmp_path, value), tmp_path)


def test_overshoot_is_noticed_and_kept() -> None:
    value = document()
    value["annotations"][0]["bbox"] = [95, 5, 10, 10]
    value["annotations"][1]["bbox"] = [95, 5, 6.5, 10]
    usable, problems = usable_annotations("file", value["images"], value["annotations"])
    assert len(usable[2]) == 20
    assert problems.counts == {"boxes cut at the image's edge": 1}


def test_broken_and_missing_masks_are_dropped() -> None:
    value = document(40)
    for annotation in value["annotations"]:
        annotation["segmentation"] = [[0, 0, 9, 0, 9, 9]]
    value["annotations"][0]["segmentation"] = [[0, 0, 9, 0], [1, 1]]
    value["annotations"][1]["segmentation"] = []
    value["annotations"].append({**value["annotations"][2], "id": 99, "image_id": 1})
    del value["annotations"][-1]["segmentation"]
    usable, problems = usable_annotations("file", value["images"], value["annotations"])
    assert len(usable[2]) == 38
    assert len(usable[1]) == 1
    assert sorted(problems.counts) == [
        "annotations dropped (mask of fewer than three points)",
        "annotations dropped (no mask, while others of the image have one)",
    ]


def test_records_count_classes_by_the_vocabulary(tmp_path: Path) -> None:
    value = document(2)
    value["annotations"][1] |= {"image_id": 1, "category_id": 4, "segmentation": [[0, 0, 9, 0, 9, 9], [1, 1]]}
    path = written(tmp_path, value)
    records, classes, _ = load_boxes(path, tmp_path)
    assert list(classes.names) == ["dog", "cat"]
    assert [record["image_id"] for record in records] == [1, 2]
    assert [record["annotations"][0]["category_id"] for record in records] == [0, 1]
    assert records[0]["annotations"][0]["segmentation"] == [[0, 0, 9, 0, 9, 9]]
    assert records[0]["file_name"] == str(tmp_path / "a.jpg")
    wider = Vocabulary(["bird", "dog", "Cat"], ids=[1, 4, 7])
    records, _, _ = load_boxes(path, tmp_path, wider)
    assert [record["annotations"][0]["category_id"] for record in records] == [1, 2]


def test_categories_that_are_no_classes_are_named(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["dog", "cats"], ids=[4, 7])
    with pytest.raises(UserError, match="the first is id 7, 'cat', expected 'cats'; do this"):
        load_boxes(written(tmp_path, document()), tmp_path, vocabulary, advice="do this")
    with pytest.raises(UserError, match="expected no class of this id"):
        check_vocabulary("file", [{"id": 1, "name": "dog"}], ["dog"], [4], "do this")
    check_vocabulary("file", [{"id": 1, "name": "Aerosol_can "}], ["aerosol can"], [1], "do this")


def test_a_missing_photo_folder_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, document())
    with pytest.raises(UserError, match=r"lists the photo .*elsewhere/a.jpg, which does not exist"):
        load_boxes(path, tmp_path / "elsewhere")


def test_lvis_photos_are_found_by_their_address(tmp_path: Path) -> None:
    value = document(1)
    for image in value["images"]:
        del image["file_name"]
        image |= {"coco_url": f"http://images.cocodataset.org/val2017/{image['id']}.jpg"}
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": [4]}
        (tmp_path / "val2017").mkdir(exist_ok=True)
        (tmp_path / f"val2017/{image['id']}.jpg").touch()
    for category in value["categories"]:
        category["frequency"] = "c"
    records, _, _ = load_boxes(written(tmp_path, value), tmp_path, federated=True)
    assert records[0]["file_name"] == str(tmp_path / "val2017/1.jpg")
    assert records[0]["not_exhaustive_category_ids"] == [4]


def test_image_labels(tmp_path: Path) -> None:
    value = document(0)
    value["images"][0] |= {"pos_category_ids": [7], "captions": ["a cat"]}
    value["images"][1] |= {"pos_category_ids": []}
    records, _, problems = load_image_labels(written(tmp_path, value), tmp_path)
    assert records == [
        {
            "file_name": str(tmp_path / "b.jpg"),
            "height": 80,
            "width": 100,
            "image_id": 2,
            "pos_category_ids": [1],
            "annotations": [],
            "captions": ["a cat"],
        }
    ]
    assert problems.counts == {"photos dropped (no class)": 1}
    broken = copy.deepcopy(value)
    del broken["images"][0]["pos_category_ids"], broken["images"][0]["captions"]
    with pytest.raises(UserError, match=r"images\[0\] has no 'pos_category_ids'"):
        load_image_labels(written(tmp_path, broken), tmp_path)


def test_real_coco_annotations_load_whole(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "data/coco_more.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "coco_more"
    path = folder / "annotations/instances_val2017.json"
    vocabulary = Vocabulary.load("coco")
    records, classes, problems = load_boxes(path, folder / "val2017", vocabulary)
    assert len(records) == 115
    assert sum(len(record["annotations"]) for record in records) == 1023
    assert sum(annotation["iscrowd"] for record in records for annotation in record["annotations"]) == 10
    assert not problems.counts
    assert classes is vocabulary
    raw = json.loads(path.read_text())
    of_id = {category["id"]: category["name"] for category in raw["categories"]}
    names = {annotation["id"]: of_id[annotation["category_id"]] for annotation in raw["annotations"]}
    loaded = [vocabulary.names[annotation["category_id"]] for record in records for annotation in record["annotations"]]
    assert sorted(loaded) == sorted(names.values())
