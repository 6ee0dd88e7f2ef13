"""Derived files: right, made once, remade when an input changes, and never over someone else's file."""

from __future__ import annotations

import csv
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from pomp_det.data import wordnet
from pomp_det.data.check_files import MISSING, PRESENT, WRONG, check_group
from pomp_det.data.class_splits import COCO_SEEN, COCO_UNSEEN
from pomp_det.data.prepare.coco import keep_classes, prepare_coco
from pomp_det.data.prepare.coco_small import prepare_coco_small
from pomp_det.data.prepare.imagenet_lvis import class_of_wnid, prepare_imagenet_lvis
from pomp_det.data.prepare.lvis import category_info, minival, prepare_lvis
from pomp_det.data.prepare.objects365 import CORRECTIONS, correct_names, prepare_objects365
from pomp_det.data.records import load_image_labels
from pomp_engine.data.derived_files import Outcome, derive_json, source_record, state_of
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

from ..support.data_files import photo, save
from ..support.published_documents import coco_document, lvis_document, objects365_document


class Built:
    """A result that knows how often it was made."""

    def __init__(self, value: Any) -> None:
        self.value, self.times = value, 0

    def __call__(self) -> Any:
        self.times += 1
        return self.value


def test_a_derived_file_is_made_once_and_remade_when_an_input_changes(tmp_path: Path) -> None:
    output, build = tmp_path / "out.json", Built({"a": 1})
    assert derive_json(output, {"in": "x"}, "r, 1", build) is Outcome.WRITTEN
    first = output.stat().st_mtime_ns
    assert derive_json(output, {"in": "x"}, "r, 1", build) is Outcome.UP_TO_DATE
    assert (build.times, output.stat().st_mtime_ns) == (1, first)
    build.value = {"a": 2}
    assert derive_json(output, {"in": "y"}, "r, 1", build) is Outcome.WRITTEN
    assert json.loads(output.read_text()) == {"a": 2}
    assert derive_json(output, {"in": "y"}, "r, 2", build) is Outcome.WRITTEN
    assert build.times == 3


def test_a_derived_file_of_another_tool_is_adopted_or_left_alone(tmp_path: Path) -> None:
    output, build = tmp_path / "out.json", Built({"a": [1, 2]})
    output.write_text('{"a":\n [1, 2]}')
    assert derive_json(output, {"in": "x"}, "r, 1", build) is Outcome.ADOPTED
    assert derive_json(output, {"in": "x"}, "r, 1", build) is Outcome.UP_TO_DATE
    output.write_text('{"a": "edited"}')
    with pytest.raises(UserError, match="exists, but is not what r, 1 makes from in"):
        derive_json(output, {"in": "x"}, "r, 1", build)
    assert json.loads(output.read_text()) == {"a": "edited"}
    assert state_of(output) == "changed since it was made; delete it and prepare it again"
    assert derive_json(output, {"in": "x"}, "r, 1", build, overwrite=True) is Outcome.WRITTEN
    assert state_of(output) is None
    source_record(output).write_text("no JSON")
    assert derive_json(output, {"in": "x"}, "r, 1", build) is Outcome.ADOPTED


def test_lvis_without_rare_classes_keeps_images_and_categories(tmp_path: Path) -> None:
    document = lvis_document()
    save(tmp_path / "lvis/lvis_v1_train.json", document)
    save(tmp_path / "lvis/lvis_v1_val.json", lvis_document("val"))
    made = prepare_lvis(tmp_path)
    assert set(made.values()) == {Outcome.WRITTEN}
    norare = json.loads((tmp_path / "lvis/lvis_v1_train_norare.json").read_text())
    assert norare["images"] == document["images"]
    assert norare["categories"] == document["categories"]
    assert [annotation["id"] for annotation in norare["annotations"]] == [1, 2, 3]
    counts = json.loads((tmp_path / "metadata/lvis_v1_train_cat_info.json").read_text())
    frequent = document["annotations"][0]["category_id"]
    assert counts[frequent - 1]["image_count"] == 2
    assert counts[frequent - 1]["instance_count"] == 3
    assert [entry["id"] for entry in counts] == list(range(1, 1204))
    small = json.loads((tmp_path / "lvis/lvis_v1_minival.json").read_text())
    assert [image["id"] for image in small["images"]] == [2]
    assert [annotation["id"] for annotation in small["annotations"]] == [3, 4]
    assert set(prepare_lvis(tmp_path).values()) == {Outcome.UP_TO_DATE}
    with pytest.raises(UserError, match="/val2017/"):
        minival(lvis_document())
    with pytest.raises(UserError, match=r"check.py lvis"):
        prepare_lvis(tmp_path / "empty")


def test_the_published_counts_are_reproduced_from_lvis_annotations(shared: Path) -> None:
    """Frequency groups by image counts of the published file: rare 1-10, common 11-100."""
    counts = json.loads((shared / "data/clip_text/lvis_v1_train_cat_info.json").read_text())
    names = [entry["name"] for entry in counts]
    assert names == list(Vocabulary.load("lvis").names)
    annotations = [
        {"image_id": image, "category_id": entry["id"]} for entry in counts for image in range(entry["image_count"])
    ]
    rebuilt = category_info({"categories": counts, "annotations": annotations})
    assert [entry["image_count"] for entry in rebuilt] == [entry["image_count"] for entry in counts]


def test_zero_shot_splits_keep_categories_and_only_images_with_kept_classes(tmp_path: Path, shared: Path) -> None:
    published = json.loads((shared / "data/clip_text/ov_coco_48_17.json").read_text())
    base, novel = ([entry["name"] for entry in published[key]] for key in ("base", "novel"))
    assert (sorted(COCO_SEEN), sorted(COCO_UNSEEN)) == (sorted(base), sorted(novel))
    annotations = tmp_path / "coco/annotations"
    for split in ("train", "val"):
        save(annotations / f"instances_{split}2017.json", coco_document())
    captions = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 50, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "A dog and a person"}],
    }
    save(annotations / "captions_train2017.json", captions)
    assert set(prepare_coco(tmp_path).values()) == {Outcome.WRITTEN}
    seen = json.loads((tmp_path / "coco/zero-shot/instances_train2017_seen_2_oriorder.json").read_text())
    assert [annotation["id"] for annotation in seen["annotations"]] == [1, 5]
    assert [image["id"] for image in seen["images"]] == [1, 3]
    assert len(seen["categories"]) == 80
    every = json.loads((tmp_path / "coco/zero-shot/instances_val2017_all_2_oriorder.json").read_text())
    assert [annotation["id"] for annotation in every["annotations"]] == [1, 2, 3, 5]
    assert [image["id"] for image in every["images"]] == [1, 2, 3]
    counts = json.loads((tmp_path / "coco/zero-shot/instances_train2017_seen_2_oriorder_cat_info.json").read_text())
    by_name = {entry["name"]: entry["image_count"] for entry in counts}
    assert (by_name["person"], by_name["dog"], len(by_name)) == (2, 0, 80)
    tags = json.loads((annotations / "captions_train2017_tags_allcaps.json").read_text())
    assert tags["images"][0]["captions"] == ["A dog and a person"]
    assert tags["images"][0]["pos_category_ids"] == [1, 18]
    assert set(prepare_coco(tmp_path).values()) == {Outcome.UP_TO_DATE}


def test_a_class_that_coco_lacks() -> None:
    with pytest.raises(UserError, match="no category 'unicorn'"):
        keep_classes(coco_document(), ["unicorn"])


def test_objects365_names_are_those_of_the_published_correction(shared: Path) -> None:
    with open(shared / "data/clip_text/Objects365_names_fix.csv", encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.reader(stream) if row and row[0].strip().isdecimal()]
    assert len(rows) == 365
    document = {"categories": [{"id": int(number), "name": old} for number, old, _ in rows]}
    corrected = [category["name"] for category in correct_names(document)["categories"]]
    assert corrected == [new for _, _, new in rows]
    assert sum(old != new for _, old, new in rows) == len(CORRECTIONS) == 13


def test_objects365_training_drops_photos_that_do_not_exist(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(tmp_path / f"objects365/annotations/zhiyuan_objv2_{split}.json", objects365_document())
    with pytest.raises(UserError, match="none of the photos"):
        prepare_objects365(tmp_path)
    photo(tmp_path / "objects365/train/patch0/a.jpg")
    photo(tmp_path / "objects365/train/images/v2/patch16/c.jpg")
    made, missing = prepare_objects365(tmp_path)
    assert missing == ["images/v1/patch0/b.jpg"]
    train = json.loads((tmp_path / "objects365/annotations/zhiyuan_objv2_train_fixname_fixmiss.json").read_text())
    assert [image["file_name"] for image in train["images"]] == ["patch0/a.jpg", "images/v2/patch16/c.jpg"]
    assert [annotation["image_id"] for annotation in train["annotations"]] == [0, 2]
    assert {category["name"] for category in train["categories"]} == set(Vocabulary.load("objects365").names)
    assert set(prepare_objects365(tmp_path)[0].values()) == {Outcome.UP_TO_DATE}
    photo(tmp_path / "objects365/train/patch0/b.jpg")
    made, missing = prepare_objects365(tmp_path)
    assert not missing
    assert sorted(outcome.name for outcome in made.values()) == ["UP_TO_DATE", "WRITTEN"]


def test_the_table_of_wordnet_ids_gives_the_published_classes(shared: Path) -> None:
    vocabulary = Vocabulary.load("lvis")
    table = wordnet.lvis_wnids()
    assert len(table) == 1202
    assert set(vocabulary.synsets or []) - set(table) == {"stop_sign.n.01"}
    published = wordnet.read_wnids(shared / "data/clip_text/imagenet_lvis_wnid.txt")
    assert set(class_of_wnid(vocabulary)) == published
    assert len(published) == 997
    assert class_of_wnid(vocabulary)["n02084071"] == list(vocabulary.names).index("dog") + 1


def test_wordnet_ids_follow_from_the_noun_index(tmp_path: Path) -> None:
    index = tmp_path / "index.noun"
    index.write_text(
        "  1 This software and database is being provided\n"
        "dog n 2 5 @ ~ #m #p %p 2 1 02084071 10114209  \n"
        "aerosol n 2 3 @ ~ + 2 1 11422597 02682922  \n"
    )
    senses = wordnet.read_noun_index(index)
    assert wordnet.wnids_of_synsets(["dog.n.01", "aerosol.n.02", "dog.n.03", "cat.n.01"], senses) == {
        "dog.n.01": "n02084071",
        "aerosol.n.02": "n02682922",
    }
    assert wordnet.lvis_wnids()["dog.n.01"] == "n02084071"
    index.write_text("dog n\n")
    with pytest.raises(UserError, match="not a noun index"):
        wordnet.read_noun_index(index)
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("# ids\nn02084071 dog.n.01\n\n")
    assert wordnet.read_mapping(mapping) == {"dog.n.01": "n02084071"}
    mapping.write_text("n02084071\n")
    with pytest.raises(UserError, match="line 1: expected a WordNet id and a synset name"):
        wordnet.read_mapping(mapping)
    with pytest.raises(UserError, match="cannot read"):
        wordnet.read_wnids(tmp_path / "absent")


def test_imagenet_photos_from_folders_and_archives(tmp_path: Path) -> None:
    place = tmp_path / "imagenet/ImageNet-LVIS"
    photo(place / "n02084071/b.JPEG", (30, 10))
    photo(place / "n02084071/a.JPEG", (10, 30))
    (place / "n02084071/notes.txt").touch()
    (place / "n02084071/broken.JPEG").write_bytes(b"no image")
    photo(place / "n00000000/z.JPEG")
    with tarfile.open(place / "n02121620.tar", "w") as archive:
        archive.add(photo(tmp_path / "cat.JPEG", (12, 8)), "c.JPEG")
    output, outcome, absent, problems = prepare_imagenet_lvis(tmp_path)
    assert outcome is Outcome.WRITTEN
    assert len(absent) == 997 - 2
    assert problems.lines() == ["1 photos left out (unreadable): n02084071/broken.JPEG"]
    vocabulary = Vocabulary.load("lvis")
    records, _, _ = load_image_labels(output, place, vocabulary)
    names = [vocabulary.names[record["pos_category_ids"][0]] for record in records]
    assert names == ["dog", "dog", "cat"]
    assert [(record["width"], record["height"]) for record in records] == [(10, 30), (30, 10), (12, 8)]
    path, offset, size = records[2]["tar"]
    assert path == str(place / "n02121620.tar")
    assert Path(path).read_bytes()[offset : offset + size] == (tmp_path / "cat.JPEG").read_bytes()
    assert prepare_imagenet_lvis(tmp_path)[1] is Outcome.UP_TO_DATE
    photo(place / "n02084071/d.JPEG")
    assert prepare_imagenet_lvis(tmp_path)[1] is Outcome.WRITTEN
    only = prepare_imagenet_lvis(tmp_path, only={"n02121620"})
    assert len(json.loads(only[0].read_text())["images"]) == 1


def test_imagenet_photos_next_to_the_registered_folder(tmp_path: Path) -> None:
    photo(tmp_path / "imagenet/ImageNet-21K/n02084071/a.JPEG")
    output, *_ = prepare_imagenet_lvis(tmp_path)
    records, _, _ = load_image_labels(output, tmp_path / "imagenet/ImageNet-LVIS")
    # The registered folder does not exist; the way to the photos leads past it.
    assert Path(records[0]["file_name"]) == tmp_path / "imagenet/ImageNet-21K/n02084071/a.JPEG"
    with pytest.raises(UserError, match="does not exist"):
        prepare_imagenet_lvis(tmp_path / "empty")
    (tmp_path / "void").mkdir()
    with pytest.raises(UserError, match="holds no photos of the 997"):
        prepare_imagenet_lvis(tmp_path, tmp_path / "void")


def test_the_check_says_present_missing_and_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = check_group("coco", tmp_path)
    assert {finding.state for finding in findings} == {MISSING}
    assert findings[0].path == tmp_path / "coco/annotations/instances_train2017.json"
    assert "annotations_trainval2017.zip" in findings[0].advice
    assert any("prepare.py coco" in finding.advice for finding in findings)
    for split in ("train", "val"):
        save(tmp_path / f"coco/annotations/instances_{split}2017.json", coco_document())
        for number in (1, 2, 3):
            photo(tmp_path / f"coco/{split}2017/{number}.jpg")
    prepare_coco(tmp_path)
    states = {(finding.dataset, finding.path.suffix): finding for finding in check_group("coco", tmp_path)}
    published = states["coco_2017_train", ".json"]
    assert published.state == WRONG
    assert published.detail == "4 images, 5 annotations; the published file lists 118,287 images"
    derived = states["coco_zeroshot_train_oriorder", ".json"]
    assert (derived.state, derived.detail) == (PRESENT, "2 images, 2 annotations")
    assert states["coco_zeroshot_train_oriorder", ""].state == PRESENT
    photos = states["coco_2017_train", ""]
    assert photos.state == MISSING
    assert "1 of 4 files are missing, the first is 4.jpg" in photos.detail
    changed = coco_document()
    changed["annotations"].pop()
    save(tmp_path / "coco/annotations/instances_train2017.json", changed)
    derived = next(f for f in check_group("coco", tmp_path) if f.dataset == "coco_zeroshot_train_oriorder")
    assert derived.state == WRONG
    assert "inputs have changed" in derived.detail


def test_the_check_names_names_that_were_not_corrected(tmp_path: Path) -> None:
    path = save(tmp_path / "objects365/annotations/zhiyuan_objv2_val_fixname.json", objects365_document())
    finding = next(f for f in check_group("objects365", tmp_path) if f.path == path)
    assert finding.state == WRONG
    assert "13 of 365 categories differ" in finding.detail
    assert "prepare.py objects365" in finding.advice


def write_boxes(path: Path, image_ids: list[int], masks: bool, first_id: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"width": 60, "height": 40}
    images = [{"id": number, "file_name": f"{number}.jpg", **size} for number in image_ids]
    annotations: list[dict[str, Any]] = []
    for number in image_ids:
        annotation: dict[str, Any] = {"id": first_id + len(annotations), "image_id": number, "category_id": 1}
        annotation |= {"bbox": [1, 2, 20, 20], "area": 400, "iscrowd": 0}
        annotations.append(annotation | ({"segmentation": [[1, 2, 21, 2, 21, 22]]} if masks else {}))
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    path.write_text(json.dumps(document))


def make_folders(root: Path) -> None:
    for folder, split, first in (("coco128", "train", 1), ("coco128_val", "val", 11)):
        annotations = root / folder / "annotations"
        write_boxes(annotations / f"instances_{split}2017_boxes.json", [first, first + 1, first + 2], masks=False)
        write_boxes(annotations / f"instances_{split}2017_masks.json", [first, first + 1], masks=True)
    for split, first in (("train", 21), ("val", 31)):
        write_boxes(root / f"coco_more/annotations/instances_{split}2017.json", [first, first + 1], masks=True)


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
    assert {annotation["image_id"] for annotation in train["annotations"] if "segmentation" not in annotation} == {3}
    assert sorted(annotation["id"] for annotation in train["annotations"]) == [1, 2, 3, 4, 5]
    masked = json.loads((tmp_path / "coco_small/instances_val_masks.json").read_text())
    assert [image["id"] for image in masked["images"]] == [11, 12, 31, 32]
    assert all("segmentation" in annotation for annotation in masked["annotations"])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    make_folders(tmp_path)
    (tmp_path / "coco_more/annotations/instances_val2017.json").unlink()
    with pytest.raises(UserError, match=r"coco_more/annotations/instances_val2017\.json does not exist"):
        prepare_coco_small(tmp_path)


def test_lists_of_wordnet_are_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (wordnet.read_mapping, wordnet.read_wnids, wordnet.read_noun_index):
        with pytest.raises(UserError, match="pipe: it is a pipe or a device; a file is expected"):
            read(tmp_path / "pipe")
