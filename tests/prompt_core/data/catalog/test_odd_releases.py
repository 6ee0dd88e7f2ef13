"""Releases that are packed, named or numbered in other ways, and damaged MATLAB files: right, or one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prompt_core.data.catalog.lookup import find_entry
from prompt_core.data.images import ImageSet, UnreadableImage
from prompt_core.data.sources import open_images
from prompt_core.errors import UserError

from ....support import benchmark_trees as trees


def refused(source: str, split: str = "test") -> str:
    with pytest.raises(UserError) as caught:
        open_images(source, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_of_archives_are_aliases() -> None:
    for alias, name in {"fgvc-aircraft-2013b": "fgvc_aircraft", "imagenet21k_resized": "imagenet21k"}.items():
        entry = find_entry(alias)
        assert entry is not None
        assert entry.name == name


def test_videos_of_torchvision_below_the_root(tmp_path: Path) -> None:
    trees.write(tmp_path / "UCF-101" / "Archery" / "v_Archery_g01_c01.avi", "video")
    trees.write(tmp_path / "ucfTrainTestlist" / "classInd.txt", "1 Archery\n")
    with pytest.raises(UserError, match=r"UCF-101 has videos: expected the middle frame of each as"):
        open_images("ucf101", "test", root=tmp_path)
    assert "UCF-101 has videos" in refused(str(tmp_path))


def test_cars_in_folders_of_the_same_name(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="MATLAB files need scipy")
    folder = tmp_path / "stanford_cars"
    trees.stanford_cars(folder)
    plain = open_images(f"cars:{tmp_path}", "test")
    for part in ("train", "test"):
        (folder / f"cars_{part}").rename(folder / "moved")
        (folder / f"cars_{part}").mkdir()
        (folder / "moved").rename(folder / f"cars_{part}" / f"cars_{part}")
    nested = open_images(f"cars:{tmp_path}", "test")
    assert nested.keys == [f"cars_test/{key}" for key in plain.keys]
    assert nested.labels.tolist() == plain.labels.tolist()


def test_names_of_cars_padded_with_spaces(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="MATLAB files need scipy")
    from scipy.io import savemat

    folder = tmp_path / "stanford_cars"
    trees.stanford_cars(folder)
    expected = open_images(f"cars:{tmp_path}", "test").names
    names = ["AM General Hummer SUV 2000", "Audi TTS Coupe 2012", "Ram C/V Cargo Van Minivan 2012"]
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})  # a matrix of characters
    (folder / "split_generated_seed1.json").unlink()
    assert open_images(f"cars:{tmp_path}", "test").names == expected


def test_cars_without_a_class(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="MATLAB files need scipy")
    from scipy.io import savemat

    trees.stanford_cars(tmp_path / "stanford_cars")
    records = np.empty((1, 2), dtype=[("class", object), ("fname", object)])
    records[0, 0], records[0, 1] = (np.zeros((0, 0)), "00001.jpg"), (2, "00002.jpg")
    savemat(tmp_path / "stanford_cars" / "cars_test_annos_withlabels.mat", {"annotations": records})
    assert "withlabels.mat, class of 00001.jpg: expected a number" in refused(f"cars:{tmp_path}")


def test_flowers_whose_names_have_gaps(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="MATLAB files need scipy")
    folder = tmp_path / "oxford_flowers"
    trees.oxford_flowers(folder, lists=True)
    trees.write(folder / "cat_to_name.json", json.dumps({"21": "z", "3": "c", "2": "b", "1": "a"}))
    assert open_images(f"flowers:{tmp_path}", "test").names == ["a", "b", "c"]
    trees.write(folder / "cat_to_name.json", json.dumps({"1": "a", "3": "c"}))
    assert "imagelabels.mat: class 2, but there are 2 names, and none for that one" in refused(f"flowers:{tmp_path}")
    for damaged in ('["a", "b"]', '{"one": "a"}'):
        trees.write(folder / "cat_to_name.json", damaged)
        assert "cat_to_name.json: expected an object with a name for each" in refused(f"flowers:{tmp_path}")


def test_flowers_with_wrong_numbers(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="MATLAB files need scipy")
    from scipy.io import savemat

    folder = tmp_path / "oxford_flowers"
    trees.oxford_flowers(folder, lists=True)
    good = (folder / "setid.mat").read_bytes()
    savemat(folder / "setid.mat", {"trnid": ["x"], "valid": [2], "tstid": [3]})
    assert "setid.mat, trnid: expected a number, got 'x'" in refused(f"flowers:{tmp_path}")
    (folder / "setid.mat").write_bytes(good)
    savemat(folder / "imagelabels.mat", {"labels": [[0, 1, 2]]})
    assert "imagelabels.mat: class 0; classes count from 1" in refused(f"flowers:{tmp_path}")
    savemat(folder / "imagelabels.mat", {"labels": ["a", "b"]})
    assert "imagelabels.mat, labels: expected a number, got 'a'" in refused(f"flowers:{tmp_path}")


def test_what_is_said_of_an_unreadable_photo_is_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no photo")
    images = ImageSet(["a"], ["a"], np.zeros(2), ["empty.jpg", "text.jpg"], "test", tmp_path)
    for index, reason in enumerate(("the file is empty", "no image of a known format")):
        with pytest.raises(UnreadableImage) as caught:
            images.read(index)
        assert caught.value.reason == reason
