"""Generated splits are saved only when they can be opened, and drawn again when an official list changed; and which
split file and which folder of photos a published split is read with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prompt_core.data.sources import open_images
from prompt_core.errors import UserError

from ....support import benchmark_trees as trees

KEPT = "split_generated_seed1.json"
ROWS = {
    "train": [["apple_pie/1.jpg", 0, "apple_pie"]],
    "val": [["apple_pie/2.jpg", 0, "apple_pie"]],
    "test": [["waffles/3.jpg", 1, "waffles"]],
}


def test_a_broken_list_keeps_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "oxford_pets"
    trees.oxford_pets(folder)
    listing = folder / "annotations" / "test.txt"
    good = listing.read_text()
    listing.write_text("Abyssinian_11 0 1 1\n")
    with pytest.raises(UserError, match=r"test.txt, line 1: class 0 of Abyssinian_11; classes count from 1"):
        open_images("oxford_pets", "train", root=tmp_path)
    listing.write_text(good.replace(" 3 ", " 7 "))
    with pytest.raises(UserError, match=r"label 3 of 0\.\.6 never occurs"):
        open_images("oxford_pets", "train", root=tmp_path)
    photo = folder / "images" / "Abyssinian_11.jpg"
    photo.rename(tmp_path / "away.jpg")
    listing.write_text(good)
    with pytest.raises(UserError, match=r"1 of 15 photos listed in the official lists of .*oxford_pets are missing"):
        open_images("oxford_pets", "train", root=tmp_path)
    assert not (folder / KEPT).exists()
    (tmp_path / "away.jpg").rename(photo)
    assert len(open_images("oxford_pets", "test", root=tmp_path)) == 15
    assert (folder / KEPT).exists()


def test_a_repaired_list_is_drawn_from_anew(tmp_path: Path) -> None:
    folder = tmp_path / "oxford_pets"
    trees.oxford_pets(folder)
    listing = folder / "annotations" / "test.txt"
    good = listing.read_text()
    listing.write_text("\n".join(good.splitlines()[:4]) + "\n")
    assert len(open_images("oxford_pets", "test", root=tmp_path)) == 4
    before = (folder / KEPT).read_bytes()
    assert len(open_images("oxford_pets", "train", root=tmp_path)) == 24
    assert (folder / KEPT).read_bytes() == before, "an unchanged list keeps the file"
    listing.write_text(good)
    assert len(open_images("oxford_pets", "test", root=tmp_path)) == 15
    assert (folder / KEPT).read_bytes() != before


def test_food_without_a_split_file_keeps_the_official_test_photos(tmp_path: Path) -> None:
    trees.food101(tmp_path / "food-101")
    train, val, test = (open_images("food101", split, root=tmp_path) for split in ("train", "val", "test"))
    official = {split: set(open_images("food101#official", split, root=tmp_path).keys) for split in ("train", "test")}
    assert set(test.keys) == official["test"]
    assert set(train.keys) | set(val.keys) == official["train"]
    assert not set(train.keys) & set(val.keys)
    assert (len(train), len(val), len(test)) == (12, 2, 6)
    assert "of the official training list are val; test is the official list" in val.source


@pytest.mark.parametrize("content", ['{"apple_pie": [1, 2]}', '{"apple_pie": ["apple_pie"]}'])
def test_food_lists_without_paths(tmp_path: Path, content: str) -> None:
    trees.food101(tmp_path / "food-101")
    trees.write(tmp_path / "food-101/meta/train.json", content)
    with pytest.raises(UserError, match=r"meta/train.json: expected photos as 'CLASS/PHOTO', got"):
        open_images("food101", "train", root=tmp_path)


def test_a_copy_of_the_photos_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "food-101"
    trees.food101(folder, lists=False)
    trees.published(folder, "split_zhou_Food101.json", ROWS)
    shutil.copytree(folder / "images", folder / "256")
    for source in (f"food101:{folder}", f"coop:{folder}", f"coop:{folder}#split_zhou_Food101.json", str(folder)):
        assert open_images(source, "test").root == folder / "images"
    assert open_images(folder / "split_zhou_Food101.json", "test").root == folder / "images"
    rows: dict[str, list[list[object]]] = {**ROWS, "test": [*ROWS["test"], ["waffles/4.jpg", 1, "waffles"]]}
    trees.published(folder, "split_zhou_Food101.json", rows)
    (folder / "images" / "waffles" / "3.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 2 photos .*the first is .*/images/waffles/3.jpg"):
        open_images(f"food101:{folder}", "test")
    shutil.rmtree(folder / "images")
    assert open_images(f"food101:{folder}", "test").root == folder / "256", "found where no known folder is"


@pytest.mark.parametrize("name", ["split_zhou_food101.json", "split_zhou_Food101 (1).json", "Split_Zhou_Food101.JSON"])
def test_a_split_file_of_another_spelling(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "food-101"
    trees.food101(folder)
    trees.published(folder, name, ROWS)
    for which in ("", "#published"):
        with pytest.raises(UserError) as caught:
            open_images(f"food101{which}", "test", root=tmp_path)
        assert f"{folder / name}, expected split_zhou_Food101.json there: rename it" in str(caught.value)
    assert not (folder / KEPT).exists()
    assert len(open_images("food101#generated", "test", root=tmp_path)) == 6, "asked for by name"


def test_a_split_file_in_the_inner_folder_of_dtd(tmp_path: Path) -> None:
    inner = tmp_path / "dtd" / "dtd"
    trees.dtd(inner)
    rows = [["banded/photo_0001.jpg", 0, "banded"], ["polka-dotted/photo_0001.jpg", 1, "polka-dotted"]]
    path = inner / "split_zhou_DescribableTextures.json"
    path.write_text(json.dumps({"train": rows, "val": rows, "test": rows}))
    images = open_images("dtd", "test", root=tmp_path)
    assert (images.root, images.keys) == (inner / "images", [row[0] for row in rows])
    assert images.source == "dtd:test (published split split_zhou_DescribableTextures.json)"
    path.rename(inner / "split_zhou_DTD.json")
    with pytest.raises(UserError, match=r"found .*dtd/dtd/split_zhou_DTD.json, expected split_zhou_Describable"):
        open_images("dtd", "test", root=tmp_path)
