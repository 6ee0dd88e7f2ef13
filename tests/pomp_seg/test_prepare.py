"""Preparation of label images: right values, no leak, nothing twice, nothing half, nothing wrong passed over."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("detectron2")

from pomp_det.data.check_files import PRESENT, WRONG
from pomp_lab.shapes.labels import prepare_shapes_seg
from pomp_seg.data.check_files import check_group
from pomp_seg.data.label_maps import read_label_map
from pomp_seg.data.label_sets import label_set
from pomp_seg.data.prepare.ade20k_full import prepare_ade20k_full
from pomp_seg.data.prepare.label_folders import Converted, convert_labels, lookup
from pomp_seg.data.prepare.pcontext import prepare_pcontext
from pomp_seg.data.prepare.remapped import (
    prepare_ade20k,
    prepare_coco_small_seg,
    prepare_coco_stuff,
    prepare_semseg_samples,
    prepare_voc_seg,
)
from pomp_seg.data.registration import check_labels, register_datasets, registered_metadata
from prompt_core.errors import UserError
from prompt_core.files import read_json

from ..support.data_files import save
from ..support.published_documents import run_lengths
from ..support.segmenter_run import check_pixels

PHOTO = np.zeros((4, 6, 3), np.uint8)


def label(*values: int) -> np.ndarray:
    """A label map of 4 x 6 pixels in which the values stand in turn."""
    return np.resize(np.array(values, dtype=np.uint8), (4, 6))


def values(path: Path) -> set[int]:
    return set(np.unique(read_label_map(path)).tolist())


def unpack(shared: Path, pack: str, folder: Path, prefix: str = "") -> Path:
    with tarfile.open(shared / f"data/{pack}.tar") as archive:
        archive.extractall(folder, [member for member in archive if member.name.startswith(prefix)], filter="data")
    return folder


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Times and bytes of all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A tiny VOC: t* are training photos, v* validation photos; v1 has base classes, as all validation photos may."""
    root = tmp_path / "VOC2012"
    maps = {"t1": (0, 1, 255), "t2": (5, 16), "t3": (0, 20, 255), "v1": (1, 2), "v2": (3, 17)}
    for name, present in maps.items():
        save(root / f"SegmentationClassAug/{name}.png", label(*present))
        save(root / f"JPEGImages/{name}.jpg", PHOTO)
    save(root / "train.txt", "t1\nt2\nt3\n")
    save(root / "val.txt", "v1\nv2\n")
    return root


def labels_of(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.png"))


def test_voc_keeps_validation_out_of_training(voc: Path) -> None:
    prepare_voc_seg(voc.parent)
    made = voc / "annotations_detectron2"
    assert labels_of(made / "train") == ["t1", "t2", "t3"]
    assert labels_of(made / "train_base") == ["t1", "t2"]  # t3 has no base class
    assert labels_of(made / "val") == ["v1", "v2"]
    assert sorted(path.name for path in made.iterdir() if path.is_dir()) == ["train", "train_base", "val"]
    register_datasets(voc.parent)
    training = ("voc_sem_seg_train", "voc_base_sem_seg_train", "voc_base_sem_seg_train_classification")
    validation = ("voc_sem_seg_test", "voc_sem_seg_test_classification")
    trained, tested = (
        {record["file_name"] for name in names for record in check_pixels(name)} for names in (training, validation)
    )
    assert {Path(file).stem for file in tested} == {"v1", "v2"}
    assert {Path(file).stem for file in trained} == {"t1", "t2", "t3"}


def test_voc_values(voc: Path) -> None:
    prepare_voc_seg(voc.parent)
    made = voc / "annotations_detectron2"
    expected = np.resize(np.array([255, 0, 255], np.uint8), (4, 6))
    assert (read_label_map(made / "train/t1.png") == expected).all()
    assert values(made / "train/t2.png") == {4, 15}
    assert values(made / "train_base/t2.png") == {4, 255}
    assert values(made / "val/v2.png") == {2, 16}
    # Counts are of the base labels themselves: no class 15..19 for a problem of 15 classes.
    assert read_json(made / "train_base_label_count.json") == {"t1.png": [0], "t2.png": [4]}
    assert read_json(made / "val_label_count.json") == {"v1.png": [0, 1], "v2.png": [2, 16]}


def test_voc_labels_of_a_leaking_preparation_are_refused(voc: Path) -> None:
    prepare_voc_seg(voc.parent)
    leaked = save(voc / "annotations_detectron2/train_base/v1.png", label(0, 1))
    with pytest.raises(UserError, match=r"train_base holds 1 labels that do not belong to this set.*v1.png"):
        prepare_voc_seg(voc.parent)
    assert any(
        finding.state == WRONG and "do not belong" in finding.detail for finding in check_group("voc_seg", voc.parent)
    )
    prepare_voc_seg(voc.parent, overwrite=True)
    assert not leaked.exists()
    assert labels_of(voc / "annotations_detectron2/train_base") == ["t1", "t2"]


def test_voc_lists_that_share_photos_are_refused(voc: Path) -> None:
    save(voc / "train.txt", "/JPEGImages/t1.jpg /SegmentationClassAug/t1.png\n/JPEGImages/v2.jpg x\n")
    with pytest.raises(UserError, match=r"1 photos are in the lists of training and of validation .*the first is v2"):
        prepare_voc_seg(voc.parent)
    assert not (voc / "annotations_detectron2").exists()
    save(voc / "train.txt", "t1\nt9\n")
    with pytest.raises(UserError, match=r"SegmentationClassAug/t9.png does not exist"):
        prepare_voc_seg(voc.parent)


def test_voc_pack_keeps_validation_out_of_training(shared: Path, tmp_path: Path) -> None:
    unpack(shared, "voc_seg", tmp_path)
    root = tmp_path / "voc_seg"
    prepare_voc_seg(root)
    lists = root / "VOC2012/ImageSets/Segmentation"
    train, val = (set((lists / f"{split}.txt").read_text().split()) for split in ("train", "val"))
    assert (len(train), len(val)) == (45, 35)
    made = root / "VOC2012/annotations_detectron2"
    assert set(labels_of(made / "train")) == train
    assert set(labels_of(made / "val")) == val
    base = set(labels_of(made / "train_base"))
    assert len(base) == 40
    assert base < train
    assert not base & val
    assert set(read_json(made / "train_base_label_count.json")) == {f"{name}.png" for name in base}
    register_datasets(root)
    trained = {record["image_id"] for record in check_pixels("voc_base_sem_seg_train")}
    tested = {record["image_id"] for record in check_pixels("voc_sem_seg_test")}
    assert not trained & tested


@pytest.fixture
def stuff(tmp_path: Path) -> Path:
    """A tiny COCO-Stuff."""
    source = tmp_path / "coco/stuffthingmaps"
    save(source / "train2017/1.png", label(0, 20, 181, 255))
    save(source / "train2017/2.png", label(20, 171))  # unseen classes alone
    save(source / "train2017/3.png", label(255))
    save(source / "val2017/4.png", label(91, 24))
    for name in "123":
        save(tmp_path / f"coco/train2017/{name}.jpg", PHOTO)
    save(tmp_path / "coco/val2017/4.jpg", PHOTO)
    return tmp_path


def test_coco_stuff_values(stuff: Path) -> None:
    made = prepare_coco_stuff(stuff)
    folder = stuff / "coco/stuffthingmaps_detectron2"
    names, base = label_set("coco_stuff").vocabulary, label_set("coco_stuff_base").vocabulary
    shown = values(folder / "train2017/1.png") - {255}
    assert [names[index] for index in sorted(shown)] == ["person", "cow", "wood"]
    assert max(shown) == 170
    shown = values(folder / "train2017_base/1.png") - {255}
    assert [base[index] for index in sorted(shown)] == ["person", "wood"]
    assert max(shown) == 155
    assert labels_of(folder / "train2017") == ["1", "2"]
    assert labels_of(folder / "train2017_base") == ["1"]
    assert made[folder / "train2017_base"] == Converted(1, 0, 0, 2)
    assert str(made[folder / "train2017_base"]) == "1 labels written, 2 sources without a labelled pixel"
    assert read_json(folder / "train2017_base_label_count.json") == {"1.png": [0, 155]}
    assert [names[index] for index in read_json(folder / "val2017_label_count.json")["4.png"]] == ["giraffe", "banner"]
    register_datasets(stuff)
    assert len(check_pixels("coco_2017_train_stuff_base_sem_seg_classification")) == 2


def test_a_second_run_changes_no_byte(stuff: Path) -> None:
    prepare_coco_stuff(stuff)
    before = content(stuff)
    made = prepare_coco_stuff(stuff)
    assert content(stuff) == before
    assert {str(outcome) for path, outcome in made.items() if path.is_dir()} == {
        "nothing to do, 2 labels, 1 sources without a labelled pixel",
        "nothing to do, 1 labels, 2 sources without a labelled pixel",
        "nothing to do, 1 labels",
    }


def test_a_changed_source_is_made_anew(stuff: Path) -> None:
    prepare_coco_stuff(stuff)
    save(stuff / "coco/stuffthingmaps/train2017/2.png", label(1))
    made = prepare_coco_stuff(stuff)
    folder = stuff / "coco/stuffthingmaps_detectron2"
    assert made[folder / "train2017"] == Converted(1, 0, 1, 1)
    assert values(folder / "train2017/2.png") == {1}
    assert read_json(folder / "train2017_base_label_count.json") == {"1.png": [0, 155], "2.png": [1]}


def test_values_that_are_no_class_are_named(stuff: Path) -> None:
    path = save(stuff / "coco/stuffthingmaps/train2017/2.png", label(1, 11))  # 11 is one of the removed ids
    with pytest.raises(UserError, match=rf"{path} has the value 11, which is not one of the data set's"):
        prepare_coco_stuff(stuff)
    # What was begun is not taken for a data set.
    register_datasets(stuff)
    with pytest.raises(UserError, match=r"is not complete: its preparation was interrupted"):
        check_labels("coco_2017_train_stuff_sem_seg")
    save(path, label(1))
    prepare_coco_stuff(stuff)
    assert len(check_labels("coco_2017_train_stuff_sem_seg")) == 2


def test_a_damaged_label_is_named_and_rebuilt_on_demand(stuff: Path) -> None:
    prepare_coco_stuff(stuff)
    folder = stuff / "coco/stuffthingmaps_detectron2/train2017"
    good = (folder / "1.png").read_bytes()
    for damage in (good[: len(good) // 2], b"", (folder / "2.png").read_bytes()):
        (folder / "1.png").write_bytes(damage)
        with pytest.raises(UserError, match=r"1 of 3 labels in .* are not what .*, the first is .*train2017/1.png"):
            prepare_coco_stuff(stuff)
        states = {(finding.dataset, finding.state) for finding in check_group("coco_stuff", stuff)}
        assert ("coco_2017_train_stuff_sem_seg", WRONG) in states
        prepare_coco_stuff(stuff, overwrite=True)
        assert (folder / "1.png").read_bytes() == good
    (folder / "1.png").unlink()
    prepare_coco_stuff(stuff)  # what is missing is no choice of anybody's
    assert (folder / "1.png").read_bytes() == good


def test_labels_of_another_tool_are_adopted_or_left_as_they_were(stuff: Path) -> None:
    prepare_coco_stuff(stuff)
    folder = stuff / "coco/stuffthingmaps_detectron2/val2017"
    record = folder.with_name("val2017.source.json")
    record.unlink()
    Image.fromarray(read_label_map(folder / "4.png").astype(np.uint16)).save(
        folder / "4.png"
    )  # same pixels, other bytes
    assert prepare_coco_stuff(stuff)[folder] == Converted(0, 1, 0, 0)
    assert record.is_file()
    record.unlink()
    save(folder / "4.png", label(7))
    with pytest.raises(UserError, match=r"4.png; move them away, or give --overwrite"):
        prepare_coco_stuff(stuff)
    assert values(folder / "4.png") == {7}
    assert not record.exists()


def test_an_interruption_leaves_whole_files_and_a_mark(tmp_path: Path) -> None:
    sources = {name: save(tmp_path / f"raw/{name}.png", label(1, 2)) for name in "abcd"}
    plain = lookup({1: 0, 2: 1}, 255)
    calls: list[Path] = []

    def stopped(path: Path) -> np.ndarray:
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(path)

    output = tmp_path / "made"
    with pytest.raises(KeyboardInterrupt):
        convert_labels(output, sources, "test 1", stopped, 2, workers=1)
    labels = labels_of(output)
    assert set(labels) - {"d"} == {"a", "b"}  # d may have begun before the interruption was noticed
    assert all(values(output / f"{name}.png") == {0, 1} for name in labels)
    assert read_json(tmp_path / "made.source.json")["complete"] is False
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == []
    assert convert_labels(output, sources, "test 1", plain, 2) == Converted(4 - len(labels), len(labels), 0, 0)
    assert read_json(tmp_path / "made.source.json")["complete"] is True
    # A new version of the recipe replaces what the old one made.
    swapped = lookup({1: 1, 2: 0}, 255)
    assert convert_labels(output, sources, "test 2", swapped, 2) == Converted(4, 0, 0, 0)


def test_ade20k(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        save(tmp_path / f"ADEChallengeData2016/annotations/{split}/a.png", label(0, 1, 150))
    prepare_ade20k(tmp_path)
    assert values(tmp_path / "ADEChallengeData2016/annotations_detectron2/validation/a.png") == {0, 149, 255}
    path = save(tmp_path / "ADEChallengeData2016/annotations/training/a.png", label(151))
    with pytest.raises(UserError, match=rf"{path} has the value 151"):
        prepare_ade20k(tmp_path)


def full_photo(folder: Path, name: str, categories: Mapping[int, str]) -> None:
    numbers = np.resize(np.array([0, *categories], np.int32), (4, 6))
    colours = np.stack([numbers // 256 * 10, numbers % 256, np.zeros_like(numbers)], axis=-1).astype(np.uint8)
    save(folder / f"{name}.jpg", PHOTO)
    save(folder / f"{name}_seg.png", colours)
    save(folder / f"{name}_parts_1.png", colours)
    objects = [{"name": text, "name_ndx": number} for number, text in categories.items()]
    save(folder / f"{name}.json", {"annotation": {"object": objects}})


def test_ade20k_full_takes_the_categories_of_both_splits(tmp_path: Path) -> None:
    folder = tmp_path / "ADE20K_2021_17_01"
    photos = folder / "images/ADE"
    full_photo(photos / "training/urban/street", "ADE_train_1", {401: "car, auto", 2978: "wall"})
    full_photo(photos / "training/home/attic", "ADE_train_2", {2420: "sky", 3000: "only here"})
    full_photo(photos / "validation/urban/street", "ADE_val_1", {2420: "sky", 2978: "wall", 3001: "nor there"})
    prepare_ade20k_full(tmp_path)
    listed = read_json(folder / "classes_detectron2.json")
    assert (listed["names"], listed["ids"]) == (["sky", "wall"], [2420, 2978])
    made = folder / "annotations_detectron2"
    assert values(made / "training/ADE_train_1.png") == {1, 255}
    assert values(made / "validation/ADE_val_1.png") == {0, 1, 255}
    before = content(tmp_path)
    prepare_ade20k_full(tmp_path)
    assert content(tmp_path) == before
    register_datasets(tmp_path)
    assert len(check_pixels("ade20k_full_sem_seg_train")) == 2
    # A given list decides classes and order.
    given = save(tmp_path / "mine.json", {"names": ["wall", "sky", "car"], "ids": [2978, 2420, 401]})
    prepare_ade20k_full(tmp_path, given)
    assert values(made / "training/ADE_train_1.png") == {0, 2, 255}
    plain = save(tmp_path / "plain.json", ["wall"])
    with pytest.raises(UserError, match=r"'names' and 'ids' are expected"):
        prepare_ade20k_full(tmp_path, plain)


def test_ade20k_full_with_many_classes_has_16_bits(tmp_path: Path) -> None:
    photos = tmp_path / "ADE20K_2021_17_01/images/ADE"
    for split in ("training", "validation"):
        full_photo(photos / split / "x", f"ADE_{split}_1", {300: "sky", 301: "wall"})
    numbers = [*range(2, 300), 301, 300]
    given = save(tmp_path / "mine.json", {"names": [f"class {number}" for number in numbers], "ids": numbers})
    prepare_ade20k_full(tmp_path, given)
    made = tmp_path / "ADE20K_2021_17_01/annotations_detectron2/training/ADE_training_1.png"
    assert values(made) == {298, 299, 65535}
    with Image.open(made) as image:
        assert image.mode == "I;16"
    register_datasets(tmp_path)
    assert registered_metadata("ade20k_full_sem_seg_train").ignore_label == 65535
    check_pixels("ade20k_full_sem_seg_train")


def test_ade20k_full_of_the_pack(shared: Path, tmp_path: Path) -> None:
    pack = unpack(shared, "semseg_samples", tmp_path, "semseg_samples/ade20k_full") / "semseg_samples/ade20k_full"
    for split, number in (("training", "00016869"), ("training", "00016900"), ("validation", "00016964")):
        target = tmp_path / "ADE20K_2021_17_01/images/ADE" / split / "urban/street"
        target.mkdir(parents=True, exist_ok=True)
        for path in pack.glob(f"ADE_train_{number}*"):
            path.rename(target / path.name)
    prepare_ade20k_full(tmp_path)
    listed = read_json(tmp_path / "ADE20K_2021_17_01/classes_detectron2.json")
    seen = read_json(pack / "classes_seen.json")
    assert len(listed["names"]) > 5
    assert [seen[str(number)] for number in listed["ids"]] == listed["names"]


def test_pascal_context(tmp_path: Path) -> None:
    left = np.zeros((4, 6), bool)
    left[:, :3] = True
    images, masks = [], []
    for number, phase in ((1, "train"), (2, "val"), (3, "test")):
        images.append({"image_id": number, "file_name": f"2008_{number}.jpg", "phase": phase, "height": 4, "width": 6})
        masks.append({"image_id": number, "category_id": 2, "segmentation": run_lengths(left)})  # aeroplane
    masks.append({"image_id": 1, "category_id": 458, "segmentation": run_lengths(~left)})  # wood
    masks.append({"image_id": 2, "category_id": 3, "segmentation": run_lengths(~left)})  # none of the 59
    path = save(tmp_path / "VOC2010/trainval_merged.json", {"images": images, "annos_segmentation": masks})
    prepare_pcontext(tmp_path)
    made = read_label_map(tmp_path / "pcontext/train/label/2008_1.png")
    assert (made == np.where(left, 0, 58)).all()
    assert values(tmp_path / "pcontext/val/label/2008_2.png") == {0, 255}
    save(tmp_path / "VOC2010/JPEGImages/2008_2.jpg", PHOTO)
    register_datasets(tmp_path)
    assert len(check_pixels("pcontext_sem_seg_val")) == 1
    before = content(tmp_path)
    prepare_pcontext(tmp_path)
    assert content(tmp_path) == before
    save(path, {"images": images})
    with pytest.raises(UserError, match=r"trainval_merged.json of PASCAL in Detail is expected"):
        prepare_pcontext(tmp_path)


def test_coco_packs(shared: Path, tmp_path: Path) -> None:
    for pack in ("coco128", "coco128_val"):
        unpack(shared, pack, tmp_path)
    prepare_coco_small_seg(tmp_path)
    assert {finding.state for finding in check_group("coco_small_seg", tmp_path)} == {PRESENT}
    register_datasets(tmp_path)
    every, base = label_set("coco_small"), label_set("coco_small_base")
    shown: dict[str, set[int]] = {}
    for name in ("coco_small_sem_seg_train", "coco_small_base_sem_seg_train", "coco_small_sem_seg_val"):
        files = {record["sem_seg_file_name"] for record in check_pixels(name)}
        shown[name] = set().union(*(values(Path(file)) for file in files)) - {255}
    trained = {base.vocabulary[index] for index in shown["coco_small_base_sem_seg_train"]}
    unseen = {every.vocabulary[index] for index in every.unseen}
    assert not trained & unseen
    assert len(unseen) == 26
    assert set(every.unseen) <= shown["coco_small_sem_seg_val"]  # each can be scored
    assert {every.vocabulary[index] for index in shown["coco_small_sem_seg_train"]} - unseen == trained


def test_samples(shared: Path, tmp_path: Path) -> None:
    unpack(shared, "semseg_samples", tmp_path)
    prepare_semseg_samples(tmp_path)
    assert {finding.state for finding in check_group("semseg_samples", tmp_path)} == {PRESENT}
    register_datasets(tmp_path)
    for name, count in (("ade20k_sample_sem_seg_val", 3), ("camvid_sem_seg_test", 10)):
        assert len(check_pixels(name)) == count


def test_shapes(tmp_path: Path) -> None:
    from pomp_lab.shapes.generate import build_shapes
    from pomp_lab.shapes.options import ShapesOptions

    build_shapes(
        tmp_path / "shapes", ShapesOptions(parts=("scenes",), classes=40, scenes=6, val_scenes=4, scene_size=64)
    )
    prepare_shapes_seg(tmp_path)
    assert {finding.state for finding in check_group("shapes_seg", tmp_path)} == {PRESENT}
    register_datasets(tmp_path)
    novel = {row["name"] for row in read_json(tmp_path / "shapes/classes.json")["classes"] if row["split"] == "novel"}
    base = registered_metadata("shapes_base_sem_seg_train")
    assert len(novel) > 0
    assert set(base.stuff_classes) == set(registered_metadata("shapes_sem_seg_val").stuff_classes) - novel
    for record in check_pixels("shapes_base_sem_seg_train"):
        every = read_label_map(tmp_path / "shapes/semantic/train" / Path(record["sem_seg_file_name"]).name)
        labels = read_label_map(record["sem_seg_file_name"])
        names = registered_metadata("shapes_sem_seg_train").stuff_classes
        shown = {names[index] for index in np.unique(every[every != 255])}
        assert {base.stuff_classes[index] for index in np.unique(labels[labels != 255])} == shown - novel


@pytest.mark.parametrize(
    "prepare",
    [
        prepare_voc_seg,
        prepare_coco_stuff,
        prepare_ade20k,
        prepare_ade20k_full,
        prepare_pcontext,
        prepare_semseg_samples,
    ],
)
def test_without_a_source(prepare: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"python datasets/check.py \w+ says how to get"):
        prepare(tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
