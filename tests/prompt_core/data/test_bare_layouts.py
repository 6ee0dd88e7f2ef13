"""A path alone, and ``folder:``: known layouts are recognised, and nothing becomes one or two wrong classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prompt_core.data.sources import open_images
from prompt_core.errors import UserError

from ...support import benchmark_trees as trees


def photos(root: Path, *names: str) -> None:
    for name in names:
        trees.save(root / name / "a.jpg")


def test_archives_one_folder_further_in(tmp_path: Path) -> None:
    trees.fgvc_aircraft(tmp_path / "fgvc-aircraft-2013b" / "data")
    assert open_images(tmp_path / "fgvc-aircraft-2013b", "test").names == ["707-320", "A300B4", "C-130"]
    trees.dtd(tmp_path / "store" / "dtd" / "dtd")
    images = open_images(tmp_path / "store" / "dtd", "test")
    assert (images.names, images.source) == (["banded", "polka-dotted"], "dtd:test (official split)")
    trees.eurosat(tmp_path / "eurosat")
    (tmp_path / "eurosat" / "2750").rename(tmp_path / "eurosat" / "EuroSAT_RGB")
    assert len(open_images(tmp_path / "eurosat", "test").names) == 10
    assert len(open_images("eurosat", "test", root=tmp_path)) == 20


def test_imagenet_with_test_for_val(tmp_path: Path) -> None:
    photos(tmp_path / "imagenet" / "images", "train/n01440764", "train/n01443537", "val/n01443537")
    images = open_images(tmp_path / "imagenet", "test")
    assert (images.names, images.labels.tolist()) == (["tench", "goldfish"], [1])
    assert images.source.startswith("imagenet:val")
    photos(tmp_path / "others" / "images", "train/n99999999", "val/n01440764")
    assert open_images(tmp_path / "others", "val").source.startswith("folder:val"), "other wnids are any folders"


@pytest.mark.parametrize("inner", ["images", "sketch"])
def test_imagenet_sketch(tmp_path: Path, inner: str) -> None:
    photos(tmp_path / "imagenet-sketch" / inner, "n01440764", "n01443537")
    for source in (tmp_path / "imagenet-sketch", f"folder:{tmp_path}/imagenet-sketch"):
        assert open_images(source, "test").labels.tolist() == [0, 1]
    assert open_images(tmp_path / "imagenet-sketch", "test").source.startswith("imagenet_sketch:test")
    photos(tmp_path / "mine" / inner, "n01440764", "n99999999")
    assert open_images(tmp_path / "mine").ids == ["n01440764", "n99999999"]


@pytest.mark.parametrize("others", [(), ("annotations",), ("annotations", "licences")])
@pytest.mark.parametrize("val", ["val", "validation"])
@pytest.mark.parametrize("above", ["", "images"])
def test_split_folders_are_entered(tmp_path: Path, others: tuple[str, ...], val: str, above: str) -> None:
    base = tmp_path / above
    photos(base, "train/cat", "train/dog", f"{val}/dog")
    for name in others:
        trees.write(base / name / "notes.txt", "text")
    images = open_images(tmp_path, "val")
    assert (images.names, images.keys, images.labels.tolist()) == (["cat", "dog"], ["dog/a.jpg"], [1])
    with pytest.raises(UserError, match=r"'test' at .*test: no such folder"):
        open_images(tmp_path, "test")


def test_classes_that_are_called_so_stay_classes(tmp_path: Path) -> None:
    photos(tmp_path / "vehicles", "bus", "train", "test")
    photos(tmp_path / "vehicles", "bus/old")
    assert open_images(tmp_path / "vehicles").names == ["bus", "test", "train"]
    photos(tmp_path / "nested", "bus/old", "train", "test")
    assert open_images(tmp_path / "nested").names == ["bus", "test", "train"]
    photos(tmp_path / "one", "bus", "train/fast")
    assert open_images(tmp_path / "one").names == ["bus", "train"], "one such folder is a class"
    photos(tmp_path / "both", "train/a", "val/a", "validation/a")
    with pytest.raises(UserError, match="both val and validation"):
        open_images(tmp_path / "both")


def keep_photos(root: Path) -> None:
    trees.dtd(root, lists=False)


def keep_photos_and_an_empty_folder(root: Path) -> None:
    trees.class_folders(root / "photos", {"Abyssinian": 2, "pug": 2})
    trees.write(root / "annotations" / "list.txt", "text")


@pytest.mark.parametrize("make", [keep_photos, keep_photos_and_an_empty_folder])
def test_one_class_of_folders_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "set")
    with pytest.raises(
        UserError, match=r"has photos in folders of (images|photos) only.*folder:.*/set/(images|photos)"
    ):
        open_images(tmp_path / "set")
    with pytest.raises(UserError, match="none of them in a class folder"):
        open_images(f"folder:{tmp_path}/set")


def test_one_class_with_photos_of_its_own_is_read(tmp_path: Path) -> None:
    photos(tmp_path, "dog", "dog/puppies")
    assert open_images(tmp_path).names == ["dog"]
    photos(tmp_path / "wnid", "n01440764/images")
    assert open_images(tmp_path / "wnid").names == ["tench"]


def test_a_root_of_data_sets_is_no_data_set(tmp_path: Path) -> None:
    trees.caltech101(tmp_path / "caltech-101")
    assert open_images(tmp_path, "test").source.startswith("caltech101:test"), "the only thing there"
    trees.eurosat(tmp_path / "eurosat")
    with pytest.raises(UserError, match=r"folder of data sets \(caltech101, eurosat\): name one, such as caltech101:"):
        open_images(tmp_path, "test")


def test_archives_unpacked_straight_below_the_root(tmp_path: Path) -> None:
    photos(tmp_path, "imagenet-a/n01440764", "imagenet-r/n01443537", "imagenetv2-matched-frequency-format-val/1")
    assert open_images("imagenet_a", "test", root=tmp_path).names == ["tench"]
    assert open_images("imagenet_r", "test", root=tmp_path).names == ["goldfish"]
    assert open_images("imagenet_v2", "test", root=tmp_path).labels.tolist() == [1]


def test_the_sets_own_folder_as_root(tmp_path: Path) -> None:
    trees.caltech101(tmp_path / "here")
    assert len(open_images("caltech101", "test", root=tmp_path / "here").names) == 4
    photos(tmp_path / "imagenet-sketch" / "images", "n01440764")
    assert open_images("imagenet_sketch", "test", root=tmp_path / "imagenet-sketch").names == ["tench"]
