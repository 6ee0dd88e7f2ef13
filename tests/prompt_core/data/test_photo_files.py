"""Lists may only name files below the data set's folder; what the file system refuses is reported in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prompt_core.data.photo_files import inside, is_file, is_folder, list_folders, list_photos
from prompt_core.data.sources import open_images
from prompt_core.errors import UserError

from ...support import benchmark_trees as trees

OUT = r"leads out of the data set's folder"


def refused(source: str | Path, split: str = "test") -> str:
    with pytest.raises(UserError) as caught:
        open_images(source, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/a.jpg",
        "../a.jpg",
        "a/../../b.jpg",
        "a/..",
        "C:\\a.jpg",
        "c:/a.jpg",
        "..\\a.jpg",
        "\\\\host\\a.jpg",
        "//host/a.jpg",
        "a\0.jpg",
        "a\\..\\b.jpg",
    ],
)
def test_paths_that_lead_out(path: str) -> None:
    with pytest.raises(UserError, match=f"list.txt, line 3: .*{OUT}"):
        inside(path, "list.txt, line 3")
    for name in ("a..b/..c.jpg", "12:30.jpg", "a b/c\\d.jpg", "c:.jpg"):
        assert inside(name, "list.txt") == name


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_split_file_stays_inside(tmp_path: Path, first: bool, absolute: bool) -> None:
    folder = tmp_path / "caltech-101"
    trees.caltech101(folder)
    trees.save(tmp_path / "secret.jpg")
    rows: list[list[object]] = [["Faces/image_0001.jpg", 0, "face"]]
    stray = str(tmp_path / "secret.jpg") if absolute else "../../secret.jpg"
    rows.insert(0 if first else 1, [stray, 0, "face"])
    trees.published(folder, "split_zhou_Caltech101.json", {"train": rows, "val": rows, "test": rows})
    assert OUT in refused(f"caltech101:{folder}")
    assert OUT in refused(f"coop:{folder}")


def escape_food(root: Path) -> str:
    trees.food101(root / "food-101")
    trees.write(root / "food-101/meta/test.json", json.dumps({"waffles": ["../../secret"]}))
    return f"food101:{root}"


def escape_aircraft(root: Path) -> str:
    trees.fgvc_aircraft(root / "fgvc_aircraft")
    trees.write(root / "fgvc_aircraft/images_variant_test.txt", "../../secret 707-320\n")
    return f"fgvc_aircraft:{root}"


def escape_sun(root: Path) -> str:
    trees.sun397(root / "sun397", torchvision=True)
    trees.write(root / "sun397/ClassName.txt", "/a/abbey\n/../other\n")
    trees.save(root / "other" / "1.jpg")
    return f"sun397:{root}"


def escape_pets(root: Path) -> str:
    trees.oxford_pets(root / "oxford_pets")
    trees.write(root / "oxford_pets/annotations/test.txt", "../../secret_1 1 1 1\n")
    return f"oxford_pets:{root}"


def escape_tiny(root: Path) -> str:
    folder = root / "tiny-imagenet-200"
    trees.write(folder / "wnids.txt", "n01440764\n")
    trees.write(folder / "words.txt", "n01440764\ttench\n")
    trees.write(folder / "val/val_annotations.txt", "../../../secret.jpg\tn01440764\n")
    return f"tiny_imagenet:{root}"


@pytest.mark.parametrize("make", [escape_food, escape_aircraft, escape_sun, escape_pets, escape_tiny])
def test_official_lists_stay_inside(tmp_path: Path, make: Callable[[Path], str]) -> None:
    trees.save(tmp_path / "secret.jpg")
    trees.save(tmp_path / "secret_1.jpg")
    assert OUT in refused(make(tmp_path), "val" if make is escape_tiny else "test")
    assert not list(tmp_path.rglob("split_generated*")), "nothing is kept of it"


def test_classes_of_sun_without_a_slash(tmp_path: Path) -> None:
    trees.sun397(tmp_path / "sun397")
    expected = open_images(f"sun397:{tmp_path}", "train")
    for name in ("ClassName.txt", "Training_01.txt", "Testing_01.txt"):
        path = tmp_path / "sun397" / name
        path.write_text("".join(f"{line[1:]}\n" for line in path.read_text().splitlines()))
    assert open_images(f"sun397:{tmp_path}", "train").keys == expected.keys


def test_links_in_a_circle_and_long_names(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert list_folders(tmp_path) == list_photos(tmp_path) == []
    assert not is_file(tmp_path / ("a" * 300))
    assert not is_folder(tmp_path / ("a" * 300))
    trees.class_folders(tmp_path / "101_ObjectCategories", {"Faces": 10, "wild_cat": 10})
    (tmp_path / "101_ObjectCategories" / "loop").symlink_to("loop")
    assert open_images(f"caltech101:{tmp_path}", "test").names == ["face", "wild_cat"]
    rows: list[list[object]] = [["Faces/image_0001.jpg", 0, "face"], ["a" * 300 + ".jpg", 0, "face"]]
    trees.published(tmp_path, "split_zhou_Caltech101.json", dict.fromkeys(("train", "val", "test"), rows))
    assert "1 of 2 photos listed in" in refused(f"caltech101:{tmp_path}")
    for source in ("a" * 300, f"folder:{tmp_path}/{'a' * 300}", f"{tmp_path}/{'a' * 300}", "a" * 300 + ".tar"):
        refused(source)
