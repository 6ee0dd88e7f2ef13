"""Data sets with semantic labels: published names, records, metadata and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_seg.data.catalog import ENTRIES, entries_of, segmentation_entry
from pomp_seg.data.registration import (
    check_labels,
    register_dataset,
    register_datasets,
    register_files,
    registered_metadata,
)
from prompt_core.errors import UserError

from ..support.data_files import save
from ..support.segmenter_run import check_pixels


def label(*values: int, kind: type = np.uint8) -> np.ndarray:
    """A label map of 4 x 6 pixels in which the values stand in turn."""
    return np.resize(np.array(values, dtype=kind), (4, 6))


PHOTO = np.zeros((4, 6, 3), np.uint8)


@pytest.fixture(autouse=True)
def _default_root() -> Iterator[None]:
    yield
    register_datasets()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with three photos, their labels and two classes."""
    for name in "abc":
        save(tmp_path / f"photos/{name}.jpg", PHOTO)
        save(tmp_path / f"labels/{name}.png", label(0, 1, 255))
    (tmp_path / "names.txt").write_text("tree\nroad\n", encoding="utf-8")
    return tmp_path


def test_every_published_name_is_known(shared: Path) -> None:
    names: set[str] = set()
    for path in sorted((shared / "data/published_configs/zsseg").rglob("*.yaml")):
        names.update(re.findall(r'T(?:RAIN|EST): \("(\w+)"', path.read_text(encoding="utf-8")))
    assert len(names) == 14
    register_datasets("/nowhere")
    for name in names:
        assert name in DatasetCatalog.list()
        assert segmentation_entry(name).name == name


def test_metadata_of_the_split() -> None:
    register_datasets("/nowhere")
    for name, classes, seen in (
        ("coco_2017_test_stuff_sem_seg", 171, 156),
        ("coco_2017_train_stuff_base_sem_seg", 156, 156),
        ("voc_sem_seg_test", 20, 15),
        ("voc_base_sem_seg_train_classification", 15, 15),
    ):
        metadata = MetadataCatalog.get(name)
        assert len(metadata.stuff_classes) == len(metadata.trainable_flag) == classes
        assert sum(metadata.trainable_flag) == len(metadata.evaluation_set["base"]) == seen
        assert metadata.ignore_label == 255
        assert metadata.evaluator_type == "sem_seg"
    for name in ("ade20k_sem_seg_val", "pcontext_sem_seg_val"):
        assert MetadataCatalog.get(name).get("trainable_flag") is None
        assert MetadataCatalog.get(name).get("evaluation_set") is None
    assert len(registered_metadata("pcontext_sem_seg_val").vocabulary) == 59


def test_records_of_a_known_set(tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    for name in ("2007_1", "2007_2", "2007_3"):
        save(root / f"JPEGImages/{name}.jpg", PHOTO)
    for name in ("2007_2", "2007_1"):
        save(root / f"annotations_detectron2/val/{name}.png", label(0, 16, 255))
    save(root / "annotations_detectron2/val_label_count.json", {"2007_1.png": [0, 16], "2007_2.png": [3]})
    register_datasets(tmp_path)
    records = DatasetCatalog.get("voc_sem_seg_test")
    assert [record["image_id"] for record in records] == ["2007_1", "2007_2"]
    assert records[0] == {
        "file_name": str(root / "JPEGImages/2007_1.jpg"),
        "sem_seg_file_name": str(root / "annotations_detectron2/val/2007_1.png"),
        "image_id": "2007_1",
        "meta": {"dataset_name": "voc_sem_seg_test"},
    }
    one_of_each = DatasetCatalog.get("voc_sem_seg_test_classification")
    assert [(record["image_id"], record["category_id"]) for record in one_of_each] == [
        ("2007_1", 0),
        ("2007_1", 16),
        ("2007_2", 3),
    ]


def test_label_counts_of_other_labels_are_refused(tmp_path: Path) -> None:
    # The recipe of POMP's README counts labels of all 20 classes for the 15 base classes.
    root = tmp_path / "VOC2012"
    save(root / "JPEGImages/a.jpg", PHOTO)
    save(root / "annotations_detectron2/train_base/a.png", label(0, 255))
    counts = root / "annotations_detectron2/train_base_label_count.json"
    register_datasets(tmp_path)
    name = "voc_base_sem_seg_train_classification"
    with pytest.raises(UserError, match=r"train_base_label_count.json does not exist; put SegmentationClassAug"):
        DatasetCatalog.get(name)
    save(counts, {"a.png": [0, 15]})
    with pytest.raises(UserError, match=r"gives a.png the class 15; expected 0..14"):
        DatasetCatalog.get(name)
    save(counts, {"a.png": [0], "b.png": [1]})
    with pytest.raises(UserError, match=r"lists 1 label files that are not in .*the first is b"):
        DatasetCatalog.get(name)
    save(counts, {})
    with pytest.raises(UserError, match=r"lacks 1 label files of .*the first is a"):
        DatasetCatalog.get(name)


def test_suffixes_and_subfolders(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    for city in ("bonn", "ulm"):
        save(root / f"leftImg8bit/val/{city}/{city}_0_leftImg8bit.png", PHOTO)
        save(root / f"gtFine/val/{city}/{city}_0_gtFine_labelTrainIds.png", label(0, 18, 255))
        save(root / f"gtFine/val/{city}/{city}_0_gtFine_labelIds.png", label(0, 33))
    register_datasets(tmp_path)
    records = check_pixels("cityscapes_fine_sem_seg_val")
    assert [record["image_id"] for record in records] == ["bonn_0", "ulm_0"]
    assert all(record["sem_seg_file_name"].endswith("labelTrainIds.png") for record in records)


def test_classes_from_a_file_come_when_it_is_there(tmp_path: Path) -> None:
    register_datasets(tmp_path)
    name = "ade20k_full_sem_seg_val"
    with pytest.raises(UserError, match=r"classes_detectron2.json, which does not exist; download ADE20K_2021_17_01"):
        registered_metadata(name)
    folder = tmp_path / "ADE20K_2021_17_01"
    names = [f"class {number}" for number in range(300)]
    save(folder / "classes_detectron2.json", {"names": names, "ids": list(range(300))})
    save(folder / "images/ADE/validation/street/a.jpg", PHOTO)
    save(folder / "annotations_detectron2/validation/a.png", label(0, 299, 65535, kind=np.uint16))
    assert registered_metadata(name).ignore_label == 65535
    assert len(check_pixels(name)) == 1


def test_own_data(tree: Path) -> None:
    row = ["mine", str(tree / "labels"), str(tree / "photos"), str(tree / "names.txt")]
    register_files([row])
    assert len(check_pixels("mine")) == 3
    assert MetadataCatalog.get("mine").stuff_classes == ["tree", "road"]
    assert MetadataCatalog.get("mine").get("trainable_flag") is None
    (tree / "seen.txt").write_text("road\n", encoding="utf-8")
    register_files([[*row, "seen.txt"]], resolve=lambda path: tree / path)
    assert MetadataCatalog.get("mine").evaluation_set == {"base": [1]}
    register_files([["mine", *row[1:3], "voc"]])
    assert len(registered_metadata("mine").vocabulary) == 20
    with pytest.raises(UserError, match=r"DATASETS.FILES has the row \['mine', 'x'\]; expected \[name, folder of lab"):
        register_files([["mine", "x"]])


def test_missing_files_are_named(tree: Path) -> None:
    register_dataset("mine", tree / "labels", tree / "photos", tree / "names.txt")
    save(tree / "photos/d.jpg", PHOTO)
    with pytest.raises(UserError, match=r"1 of 4 photos have no label file below .*labels, the first is .*d.jpg"):
        check_labels("mine")
    save(tree / "labels/d.png", label(0))
    save(tree / "labels/e.png", label(0))
    with pytest.raises(UserError, match=r"1 of 5 labels have no photo below .*photos, the first is .*e.png"):
        check_labels("mine")
    register_dataset("mine", tree / "absent", tree / "photos", tree / "names.txt")
    with pytest.raises(UserError, match=r"absent, which does not exist; correct the folder of labels"):
        check_labels("mine")
    (tree / "empty").mkdir()
    register_dataset("mine", tree / "empty", tree / "photos", tree / "names.txt")
    with pytest.raises(UserError, match=r"empty holds no label images"):
        check_labels("mine")


def test_wrong_values_and_sizes_are_named(tree: Path) -> None:
    register_dataset("mine", tree / "labels", tree / "photos", tree / "names.txt")
    save(tree / "labels/b.png", label(0, 2))
    with pytest.raises(UserError, match=r"b.png has the value 2; expected 0..1, or 255"):
        check_pixels("mine")
    check_labels("mine")  # files alone
    save(tree / "labels/b.png", label(0, 1)[:3])
    with pytest.raises(UserError, match=r"b.png is 6 x 3 pixels .*b.jpg 6 x 4"):
        check_pixels("mine")
    with pytest.raises(UserError, match=r"ignored value 1 is also one of 2 classes"):
        register_dataset("mine", tree / "labels", tree / "photos", tree / "names.txt", ignore_label=1)


def test_two_labels_of_one_name_are_refused(tree: Path) -> None:
    save(tree / "labels/more/a.png", label(0))
    register_dataset("mine", tree / "labels", tree / "photos", tree / "names.txt")
    with pytest.raises(UserError, match=r"have the same name; expected one file for each"):
        check_labels("mine")


def test_an_interrupted_preparation_is_refused(tree: Path) -> None:
    save(tree / "labels.source.json", {"recipe": "any", "complete": False, "files": {}})
    register_dataset("mine", tree / "labels", tree / "photos", tree / "names.txt")
    with pytest.raises(UserError, match=r"labels is not complete: its preparation was interrupted"):
        check_labels("mine")


def test_unknown_names() -> None:
    with pytest.raises(UserError, match=r"data set 'voc_sem_seg_tset' is not registered; nearest: 'voc_sem_seg_test'"):
        registered_metadata("voc_sem_seg_tset")
    with pytest.raises(UserError, match=r"was not registered with semantic labels"):
        registered_metadata("coco_2014_val")
    with pytest.raises(UserError, match=r"data set 'voc' is unknown"):
        segmentation_entry("voc")
    with pytest.raises(UserError, match=r"'voc_sg' is not a group of data sets; nearest: 'voc_seg'"):
        entries_of("voc_sg")
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    assert {entry.group for entry in entries_of("all")} == {
        *("coco_stuff", "voc_seg", "pcontext", "ade20k", "ade20k_full", "cityscapes"),
    }


def test_sets_of_boxes_are_no_labels() -> None:
    """Detection sets of the same process have a vocabulary too."""
    from pomp_det.data.registration import register_datasets as register_boxes
    from pomp_seg.data.registration import dataset_labels

    register_boxes()
    for look in (registered_metadata, lambda name: dataset_labels([name])):
        with pytest.raises(UserError, match="'coco_2017_train' was not registered with semantic labels"):
            look("coco_2017_train")


def test_files_are_listed_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of a run, its evaluators and its loaders ask for the records one after the other."""
    register_dataset("mine", tree / "labels", tree / "photos", tree / "names.txt")
    records = check_labels("mine")
    monkeypatch.setattr("os.walk", lambda folder: pytest.fail(f"{folder} is listed again"))
    check_labels("mine")[0]["height"] = 1  # a caller's records are its own
    assert check_labels("mine") == records
