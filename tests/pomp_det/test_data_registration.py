"""Names of published configurations are registered below one data root, with their classes and groups."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_det.data.catalog import ENTRIES, dataset_entry, entries_of
from pomp_det.data.registration import (
    dataset_vocabulary,
    register_dataset,
    register_datasets,
    registered_metadata,
)
from pomp_lab.shapes.generate import build_shapes
from pomp_lab.shapes.options import ShapesOptions
from prompt_core.errors import UserError
from prompt_core.files import data_root


def test_the_root_is_given_or_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("POMP_DATA", raising=False)
    assert data_root() == Path("datasets")
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("elsewhere") == Path("elsewhere")
    assert register_datasets() == tmp_path
    assert registered_metadata("lvis_v1_val").json_file == str(tmp_path / "lvis/lvis_v1_val.json")
    register_datasets(tmp_path / "other")
    assert registered_metadata("lvis_v1_val").json_file == str(tmp_path / "other/lvis/lvis_v1_val.json")


def test_every_name_of_published_configurations_is_registered(shared: Path, tmp_path: Path) -> None:
    register_datasets(tmp_path)
    named = set()
    for path in (shared / "data/published_configs/detic").glob("*.yaml"):
        for line in re.findall(r"^\s+(?:TRAIN|TEST): (\(.*\))", path.read_text(), flags=re.MULTILINE):
            named |= set(re.findall(r"['\"](\w+)['\"]", line))
    assert {"lvis_v1_train_norare", "imagenet_lvis_v1", "objects365_v2_val", "coco_caption_train_tags"} <= named
    for name in named:
        assert registered_metadata(name).thing_classes


@pytest.mark.parametrize(
    ("name", "kind", "classes"),
    [
        ("lvis_v1_train_norare", "lvis", 1203),
        ("lvis_v1_minival", "lvis", 1203),
        ("coco_2017_val", "coco", 80),
        ("coco_generalized_zeroshot_val", "coco", 80),
        ("objects365_v2_val", "coco", 365),
        ("objects365_v2_val_rare", "coco", 365),
        ("oid_val_expanded", "openimages", 500),
        ("imagenet_lvis_v1", "image_labels", 1203),
    ],
)
def test_classes_come_from_the_vocabulary(tmp_path: Path, name: str, kind: str, classes: int) -> None:
    register_datasets(tmp_path)
    metadata = registered_metadata(name)
    assert metadata.evaluator_type == kind
    assert len(metadata.thing_classes) == len(dataset_vocabulary(name)) == classes
    assert sorted(metadata.thing_dataset_id_to_contiguous_id.values()) == list(range(classes))


def test_lvis_counts_for_the_federated_loss_are_those_of_the_whole_training_set(tmp_path: Path) -> None:
    register_datasets(tmp_path)
    counts = registered_metadata("lvis_v1_train_norare").class_image_count
    frequency = dataset_vocabulary("lvis_v1_train").frequency
    assert frequency is not None
    by_id = {entry["id"]: entry["image_count"] for entry in counts}
    assert {letter: sum(one_letter == letter for one_letter in frequency) for letter in "rcf"} == {
        "r": 337,
        "c": 461,
        "f": 405,
    }
    assert all(1 <= by_id[row + 1] <= 10 for row, letter in enumerate(frequency) if letter == "r")


def test_open_vocabulary_coco_names_its_groups(tmp_path: Path) -> None:
    register_datasets(tmp_path)
    metadata = registered_metadata("coco_generalized_zeroshot_val")
    assert {name: len(ids) for name, ids in metadata.class_groups.items()} == {"seen": 48, "unseen": 17}


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    register_datasets(tmp_path)
    with pytest.raises(UserError, match=r"needs .*lvis_v1_train_norare.json, .*python datasets/prepare.py lvis"):
        DatasetCatalog.get("lvis_v1_train_norare")


def test_an_unknown_name_has_a_nearest_one() -> None:
    with pytest.raises(UserError, match="nearest: 'lvis_v1_train'"):
        registered_metadata("lvis_v1_trian")
    with pytest.raises(UserError, match="nearest: 'objects365_v2_val'"):
        dataset_entry("objects365_val")
    with pytest.raises(UserError, match="nearest: 'objects365'"):
        entries_of("object365")
    with pytest.raises(UserError, match="nearest: 'coco'"):
        register_dataset("mine", "a.json", ".", kind="cocoa")


def test_other_places_of_the_same_file_are_accepted(tmp_path: Path) -> None:
    entry = dataset_entry("objects365_v2_val")
    assert entry.annotation_file(tmp_path) == tmp_path / "objects365/annotations/zhiyuan_objv2_val_fixname.json"
    moved = tmp_path / "objects365/zhiyuan_objv2_val_fixname.json"
    moved.parent.mkdir()
    moved.touch()
    assert entry.annotation_file(tmp_path) == moved


def test_names_are_unique_and_advice_is_complete(tmp_path: Path) -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        for text in (entry.advice(tmp_path), entry.images_advice(tmp_path)):
            assert "{" not in text
            assert "python datasets/" in text or str(tmp_path) in text


def test_drawn_shapes_load_in_both_formats(tmp_path: Path) -> None:
    options = ShapesOptions(parts=("scenes",), classes=20, scenes=3, val_scenes=2, scene_size=64)
    build_shapes(tmp_path / "shapes", options)
    register_datasets(tmp_path)
    coco, lvis = DatasetCatalog.get("shapes_train"), DatasetCatalog.get("shapes_lvis_train")
    assert [record["file_name"] for record in coco] == [record["file_name"] for record in lvis]
    assert len(dataset_vocabulary("shapes_train")) == len(dataset_vocabulary("shapes_lvis_train")) == 20
    rare = {
        row
        for row, letter in enumerate(dataset_vocabulary("shapes_lvis_train_norare").frequency or [])
        if letter == "r"
    }
    norare = DatasetCatalog.get("shapes_lvis_train_norare")
    assert rare
    assert not rare & {annotation["category_id"] for record in norare for annotation in record["annotations"]}
    assert len(norare) == len(lvis)
    # Classes are known before anything is loaded, from the file alone.
    register_datasets(tmp_path)
    assert MetadataCatalog.get("shapes_val").get("thing_classes") is None
    names = dataset_vocabulary("shapes_val").names
    assert MetadataCatalog.get("shapes_val").thing_classes == list(names)
    raw = json.loads((tmp_path / "shapes/annotations/instances_val.json").read_text())
    assert list(names) == [category["name"] for category in raw["categories"]]
