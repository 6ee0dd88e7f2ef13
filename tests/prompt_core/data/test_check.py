"""What ``datasets/check.py`` finds: files that cannot be read, photos listed twice, any source, broken sets."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from prompt_core.data.catalog.benchmark_splits import Benchmark
from prompt_core.data.check import BROKEN, MISSING, PRESENT, WRONG, check_group, check_source
from prompt_core.data.check_photos import repeated
from prompt_core.data.sources import open_images
from prompt_core.errors import UserError

from ...support import benchmark_trees as trees


def test_empty_files_are_found_in_every_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prompt_core.data.check_photos.DECODE_ALL", 3)
    folder = tmp_path / "caltech-101"
    trees.caltech101(folder)
    train, val = (open_images("caltech101", split, root=tmp_path) for split in ("train", "val"))
    for images in (train, val):
        (images.root / images.keys[1]).write_bytes(b"")
    findings = {finding.detail.partition(":")[0]: finding for finding in check_group("caltech101", tmp_path)}
    for split, images in (("train", train), ("val", val)):
        assert f"; 1 photos are empty files, the first is {images.keys[1]}; " in findings[split].detail
        assert findings[split].state == WRONG
    assert "empty" not in findings["test"].detail


def test_small_splits_are_decoded_whole(tmp_path: Path) -> None:
    trees.caltech101(tmp_path / "caltech-101")
    for split in ("train", "val", "test"):
        images = open_images("caltech101", split, root=tmp_path)
        (images.root / images.keys[5]).write_bytes(b"no photo")
    details = [finding.detail for finding in check_group("caltech101", tmp_path)[1:]]
    assert ["1 cannot be read: " in detail for detail in details] == [True] * 3
    assert "21 photos, 20 of them read; " in details[0]


def test_photos_listed_twice_are_mentioned(tmp_path: Path) -> None:
    folder = tmp_path / "dtd"
    trees.dtd(folder)
    stripes = [[f"banded/photo_000{number}.jpg", 0, "banded"] for number in (1, 2, 3)]
    dots = [["polka-dotted/photo_0004.jpg", 1, "polka-dotted"]]
    test = [*stripes[1:], stripes[1], *dots, ["banded/photo_0009.jpg", 0, "banded"]]
    test.append(["banded/photo_0009.jpg", 1, "polka-dotted"])
    rows = {"train": [stripes[0], *dots], "val": [["banded/photo_0005.jpg", 0, "banded"]], "test": test}
    trees.published(folder, "split_zhou_DescribableTextures.json", rows)
    train, val, tested = (open_images("dtd", split, root=tmp_path) for split in ("train", "val", "test"))
    assert repeated(train, {}) == repeated(val, {"train": train}) == []
    assert repeated(tested, {"train": train, "val": val}) == [
        "1 photos are listed twice, the first is banded/photo_0002.jpg",
        "1 photos have two labels, the first is banded/photo_0009.jpg",
        "1 photos are in train too, the first is polka-dotted/photo_0004.jpg",
    ]
    assert "note: 1 photos have two labels" in check_group("dtd", tmp_path)[-1].detail


def test_what_cannot_be_opened_is_broken(tmp_path: Path) -> None:
    trees.food101(tmp_path / "food-101")
    trees.published(tmp_path / "food-101", "split_zhou_food101.json", {"train": [], "val": [], "test": []})
    (finding,) = check_group("food101", tmp_path)
    assert finding.state == BROKEN
    assert "expected split_zhou_Food101.json there: rename it" in finding.detail
    trees.oxford_pets(tmp_path / "oxford_pets")
    (tmp_path / "oxford_pets/annotations/test.txt").unlink()
    assert [finding.state for finding in check_group("pets", tmp_path)] == [MISSING, BROKEN]


def test_food_without_a_split_file_is_not_broken(tmp_path: Path) -> None:
    trees.food101(tmp_path / "food-101")
    published, *parts = check_group("food101", tmp_path)
    assert published.state == MISSING
    assert [part.state for part in parts] == [WRONG] * 3, "too few classes"
    assert "expected 25,250 (literature) photos; " in parts[2].detail
    assert "of the first" not in parts[2].detail, "the base half of another division is not expected"


def test_one_set_that_nobody_foresaw_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.eurosat(tmp_path / "eurosat")

    def fail(*_: object) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(Benchmark, "published", fail)
    findings = {finding.dataset: finding for finding in check_group("classification", tmp_path)}
    assert (findings["eurosat"].state, findings["eurosat"].detail) == (
        BROKEN,
        "cannot be checked: ZeroDivisionError: odd",
    )
    assert len(findings) == 16
    assert findings["ucf101"].state == MISSING


def test_folders_are_counted(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "val/cat"):
        trees.save(tmp_path / "mine" / name / "a.jpg")
    for source in (f"folder:{tmp_path}/mine", f"{tmp_path}/mine"):
        train, val = check_source(source, tmp_path)
        assert (train.state, val.state) == (PRESENT, PRESENT), "nothing is expected"
        assert train.detail == "train: 2 classes, 2 photos, all of them read; names: folders"
        assert "; note: 1 classes have no photos, the first is 'dog'; " in val.detail
    (tmp_path / "mine/train/cat/a.jpg").write_bytes(b"")
    assert check_source(f"{tmp_path}/mine", tmp_path)[0].state == WRONG
    with pytest.raises(UserError, match="no image folder or file"):
        check_source(f"{tmp_path}/absent", tmp_path)


def test_a_source_without_splits_is_one_row(tmp_path: Path) -> None:
    trees.save(tmp_path / "a.jpg")
    with open(tmp_path / "labels.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("file", "class_name"), ("a.jpg", "x")])
    (finding,) = check_source(f"csv:{tmp_path}", tmp_path)
    assert finding.detail == "train, val, test: 1 classes, 1 photos, all of them read"


def test_named_sets_with_a_path_are_counted(tmp_path: Path) -> None:
    trees.caltech101(tmp_path / "anywhere")
    before = sorted(tmp_path.rglob("*"))
    findings = check_source(f"caltech101:{tmp_path}/anywhere", tmp_path)
    assert [finding.state for finding in findings] == [PRESENT] * 3
    assert {finding.dataset for finding in findings} == {"caltech101"}
    assert "expected" not in findings[-1].detail
    assert len(check_source(f"{tmp_path}/anywhere", tmp_path)) == 3
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"
    trees.food101(tmp_path / "food-101")
    official = check_source(f"food101:{tmp_path}#official", tmp_path)
    assert [finding.detail.partition(":")[0] for finding in official] == ["train", "test"], "no val by design"
    assert {finding.state for finding in official} == {PRESENT}
    trees.write(tmp_path / "food-101/meta/test.json", json.dumps({"waffles": ["waffles/99"]}))
    states = {finding.state for finding in check_source(f"food101:{tmp_path}#official", tmp_path)}
    assert states == {PRESENT, BROKEN}


def test_the_sets_own_folder_as_root(tmp_path: Path) -> None:
    trees.caltech101(tmp_path / "caltech-101")
    inside = check_group("caltech101", tmp_path / "caltech-101")
    assert [finding.detail for finding in inside] == [finding.detail for finding in check_group("caltech101", tmp_path)]
