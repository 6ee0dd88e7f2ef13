"""CoOp's benchmarks in each layout: published, official and generated splits, and what is said when something lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompt_core.data.catalog.benchmark_splits import Benchmark
from prompt_core.data.catalog.lookup import classification_entry
from prompt_core.data.images import ImageSet
from prompt_core.data.sources import open_images
from prompt_core.errors import UserError

from ....support import benchmark_trees as trees

PARTS = ("train", "val", "test")


def parts_of(name: str) -> list[ImageSet]:
    """The three splits: same classes, and no photo in two of them."""
    parts = [open_images(name, split) for split in PARTS]
    assert parts[0].names == parts[1].names == parts[2].names
    keys = [key for part in parts for key in part.keys]
    assert len(set(keys)) == len(keys)
    return parts


def photos_of(images: ImageSet) -> dict[bytes, int]:
    labels = {images.read(index).tobytes(): int(label) for index, label in enumerate(images.labels)}
    assert len(labels) == len(images)
    return labels


def sizes(parts: list[ImageSet]) -> list[int]:
    return [len(part) for part in parts]


def test_caltech101_drops_and_renames(tmp_path: Path) -> None:
    trees.caltech101(tmp_path / "caltech-101")
    parts = parts_of(f"caltech101:{tmp_path}")
    assert parts[0].names == ["face", "leopard", "airplane", "wild_cat"]
    assert sizes(parts) == [5 + 2 + 4 + 10, 2 + 1 + 1 + 4, 3 + 1 + 2 + 6]
    assert all(key.endswith(".jpg") for part in parts for key in part.keys)
    assert parts[0].source.startswith("caltech101:train (generated split, seed 1, not the published one")
    split_file = tmp_path / "caltech-101" / "split_generated_seed1.json"
    before = split_file.read_bytes()
    assert open_images(f"caltech101:{tmp_path}/caltech-101", "test").keys == parts[2].keys
    split_file.unlink()
    assert open_images(f"caltech101:{tmp_path}", "test").keys == parts[2].keys
    assert split_file.read_bytes() == before, "the same seed draws the same split"


def test_a_kept_split_stays_when_photos_are_added(tmp_path: Path) -> None:
    folder = tmp_path / "eurosat"
    trees.eurosat(folder)
    parts = parts_of(f"eurosat:{folder}")
    assert parts[0].names[0] == "Annual Crop Land"
    assert parts[0].names[-1] == "Sea or Lake"
    trees.save(folder / "2750" / "River" / "later.jpg")
    assert open_images(f"eurosat:{folder}", "train").keys == parts[0].keys
    (folder / "2750" / parts[2].keys[0]).unlink()
    with pytest.raises(UserError, match=r"1 of 20 photos listed in .*seed1.json are missing.*delete that file"):
        open_images(f"eurosat:{folder}", "test")
    (folder / "split_generated_seed1.json").write_text("[]")
    with pytest.raises(UserError, match=r"split_generated_seed1.json is damaged: delete it"):
        open_images(f"eurosat:{folder}", "test")


def test_a_generated_split_is_never_called_published(tmp_path: Path) -> None:
    folder = tmp_path / "eurosat"
    trees.eurosat(folder)
    open_images(f"eurosat:{folder}", "train")
    with pytest.raises(UserError, match=r"expected a CoOp split file at .*split_zhou_EuroSAT.json"):
        open_images(f"eurosat:{folder}#published", "test")
    (folder / "split_generated_seed1.json").rename(folder / "split_zhou_EuroSAT.json")
    with pytest.raises(UserError, match="was generated, it is not the published split"):
        open_images(f"eurosat:{folder}", "test")
    assert "generated split" in open_images(f"coop:{folder}", "test").source


def test_the_published_split_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "dtd"
    trees.dtd(folder)
    rows = {
        "train": [["banded/photo_0001.jpg", 0, "stripes"]],
        "val": [["banded/photo_0002.jpg", 0, "stripes"]],
        "test": [["polka-dotted/photo_0003.jpg", 1, "polka_dots"]],
    }
    trees.published(folder, "split_zhou_DescribableTextures.json", rows)
    images = open_images(f"dtd:{tmp_path}", "test")
    assert images.names == ["stripes", "polka_dots"], "names are those of the file, with their underscores"
    assert images.labels.tolist() == [1]
    assert images.source == "dtd:test (published split split_zhou_DescribableTextures.json)"
    assert not (folder / "split_generated_seed1.json").exists()
    assert len(open_images(f"dtd:{tmp_path}#official", "test")) == 8
    assert len(open_images(f"dtd:{tmp_path}#generated", "test")) == 6


def test_a_read_only_folder_gets_no_file_and_the_same_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "eurosat"
    trees.eurosat(folder)
    expected = open_images(f"eurosat:{folder}", "test").keys
    (folder / "split_generated_seed1.json").unlink()

    def refuse(path: Path, value: Any) -> None:
        raise UserError(f"cannot write {path}: Read-only file system")

    monkeypatch.setattr("prompt_core.data.catalog.benchmark_splits.write_json", refuse)
    assert open_images(f"eurosat:{folder}", "test").keys == expected
    assert [path.name for path in folder.iterdir()] == ["2750"]


@pytest.mark.parametrize(
    ("name", "make", "names", "expected"),
    [
        ("oxford_pets", trees.oxford_pets, ["abyssinian", "american_bulldog", "egyptian_mau"], [24, 6, 15]),
        ("sun397", trees.sun397, ["abbey", "outdoor apartment_building", "zoo"], [12, 3, 15]),
        ("ucf101", trees.ucf101, ["Apply_Eye_Makeup", "Archery", "Yo_Yo"], [24, 6, 15]),
        (
            "stanford_cars",
            trees.stanford_cars,
            ["2000 AM General Hummer SUV", "2012 Audi TTS Coupe", "2012 Ram C/V Cargo Van Minivan"],
            [12, 3, 15],
        ),
    ],
)
def test_official_test_photos_are_kept(
    tmp_path: Path, name: str, make: Callable[[Path], None], names: list[str], expected: list[int]
) -> None:
    if name == "stanford_cars":
        pytest.importorskip("scipy", reason="MATLAB files need scipy")
    make(tmp_path / name)
    parts = parts_of(f"{name}:{tmp_path}")
    assert parts[0].names == names
    assert sizes(parts) == expected
    assert "20 % of the photos of each class of the official training list are val" in parts[1].source
    official = open_images(f"{name}:{tmp_path}#official", "test")
    assert sorted(official.keys) == sorted(parts[2].keys)
    train = open_images(f"{name}:{tmp_path}#official", "train")
    assert sorted(train.keys) == sorted(parts[0].keys + parts[1].keys)
    assert train.source == f"{name}:train (official split)"
    with pytest.raises(UserError, match="the official lists have train and test, no val"):
        open_images(f"{name}:{tmp_path}#official", "val")


def test_folders_without_lists_are_drawn_from(tmp_path: Path) -> None:
    trees.dtd(tmp_path / "dtd", lists=False)
    trees.food101(tmp_path / "food-101", lists=False)
    assert sizes(parts_of(f"dtd:{tmp_path}")) == [10, 4, 6]
    food = parts_of(f"food101:{tmp_path}")
    assert sizes(food) == [10, 4, 6]
    assert food[0].names == ["apple_pie", "waffles"]
    with pytest.raises(UserError, match="has no official lists"):
        open_images(f"food101:{tmp_path}#official", "test")


def test_flowers_are_named_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="MATLAB files need scipy")
    trees.oxford_flowers(tmp_path / "oxford_flowers")
    parts = parts_of(f"flowers102:{tmp_path}")
    assert parts[0].names == ["pink primrose", "hard-leaved pocket orchid", "canterbury bells"]
    assert sizes(parts) == [15, 6, 9]
    first = next(part for part in parts if "image_00001.jpg" in part.keys)
    assert first.labels[first.keys.index("image_00001.jpg")] == 1
    (tmp_path / "oxford_flowers" / "cat_to_name.json").unlink()
    (tmp_path / "oxford_flowers" / "split_generated_seed1.json").unlink()
    assert len(open_images(f"flowers102:{tmp_path}", "test").names) == 3, "torchvision's names, of classes that occur"


# torchvision's class, its arguments for our train, val and test, the tree, our name, and the folder below the root
ORACLES: list[Any] = [
    ("OxfordIIITPet", {"test": {"split": "test"}}, trees.oxford_pets, "oxford_pets", "oxford-iiit-pet"),
    ("DTD", {part: {"split": part} for part in PARTS}, trees.dtd, "dtd", "dtd/dtd"),
    ("Food101", {part: {"split": part} for part in ("train", "test")}, trees.food101, "food101", "food-101"),
    ("StanfordCars", {"test": {"split": "test"}}, trees.stanford_cars, "stanford_cars", "stanford_cars"),
    (
        "Flowers102",
        {part: {"split": part} for part in PARTS},
        lambda folder: trees.oxford_flowers(folder, lists=True),
        "oxford_flowers",
        "flowers-102",
    ),
    (
        "FGVCAircraft",
        {part: {"split": part} for part in PARTS},
        trees.fgvc_aircraft,
        "fgvc_aircraft",
        "fgvc-aircraft-2013b/data",
    ),
]


@pytest.mark.parametrize(("reader", "splits", "make", "name", "folder"), ORACLES, ids=[row[0] for row in ORACLES])
def test_torchvision_reads_the_same_photos_and_labels(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reader: str,
    splits: dict[str, dict[str, Any]],
    make: Callable[[Path], None],
    name: str,
    folder: str,
) -> None:
    if reader in ("StanfordCars", "Flowers102"):
        pytest.importorskip("scipy", reason="MATLAB files need scipy")
    from torchvision import datasets

    make(tmp_path / folder)
    # Flowers102 wants the published file, by its hash
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)
    for split, arguments in splits.items():
        theirs = getattr(datasets, reader)(str(tmp_path), **arguments)
        photos = [theirs[index] for index in range(len(theirs))]
        expected = {photo.convert("RGB").tobytes(): label for photo, label in photos}
        assert len(expected) == len(photos)
        which = "#official" if (reader, split) == ("Food101", "train") else ""
        assert photos_of(open_images(f"{name}:{tmp_path}{which}", split)) == expected
    images = open_images(name, "test", root=tmp_path)
    if reader in ("DTD", "Flowers102"):
        assert images.source == f"{name}:test (official split)"
    assert open_images(tmp_path / folder, "test").keys == images.keys, "the folder alone is recognised"


@pytest.mark.parametrize(
    ("reader", "make", "name", "folder"),
    [
        ("Caltech101", trees.caltech101, "caltech101", "caltech101"),
        ("EuroSAT", trees.eurosat, "eurosat", "eurosat"),
        ("SUN397", lambda folder: trees.sun397(folder, torchvision=True), "sun397", "SUN397"),
    ],
)
def test_torchvision_folders_without_a_split(
    tmp_path: Path, reader: str, make: Callable[[Path], None], name: str, folder: str
) -> None:
    from torchvision import datasets

    make(tmp_path / folder)
    for junk in tmp_path.rglob("Thumbs.db"):
        junk.unlink()  # torchvision counts every file of Caltech101 as a photo
    theirs = getattr(datasets, reader)(str(tmp_path))
    photos = [theirs[index] for index in range(len(theirs))]
    expected = {photo.convert("RGB").tobytes(): label for photo, label in photos}
    label_of: dict[bytes, int] = {}
    for part in parts_of(f"{name}:{tmp_path}"):
        label_of |= photos_of(part)
        assert "generated split" in part.source
    dropped = 10 if name == "caltech101" else 0  # Faces_easy
    assert len(label_of) == len(expected) - dropped
    ours = {
        label: {expected[pixels] for pixels in label_of if label_of[pixels] == label}
        for label in set(label_of.values())
    }
    assert all(len(labels) == 1 for labels in ours.values()), "photos of one class are of one class there too"
    order = [next(iter(ours[label])) for label in sorted(ours)]
    assert order == sorted(order)


def test_videos_are_no_photos(tmp_path: Path) -> None:
    trees.write(tmp_path / "ucf101" / "UCF-101" / "Archery" / "v_Archery_g01_c01.avi", "video")
    with pytest.raises(UserError, match=r"UCF-101 has videos: expected the middle frame of each as .*midframes"):
        open_images(f"ucf101:{tmp_path}", "test")


def test_a_class_without_photos_is_named(tmp_path: Path) -> None:
    trees.caltech101(tmp_path / "caltech-101")
    (tmp_path / "caltech-101" / "101_ObjectCategories" / "anchor").mkdir()
    trees.write(tmp_path / "caltech-101" / "101_ObjectCategories" / "anchor" / "notes.txt", "no photo")
    with pytest.raises(UserError, match=r"class folder .*/anchor has no photos"):
        open_images(f"caltech101:{tmp_path}", "test")


def first_line(name: str, split: str = "test") -> str:
    with pytest.raises(UserError) as caught:
        open_images(name, split)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_pieces_are_named_by_path(tmp_path: Path) -> None:
    assert f"expected sun397 at {tmp_path}/absent: no such folder" in first_line(f"sun397:{tmp_path}/absent")
    (tmp_path / "caltech-101").mkdir()
    assert str(tmp_path / "caltech-101/101_ObjectCategories") in first_line(f"caltech101:{tmp_path}")
    trees.oxford_pets(tmp_path / "oxford_pets")
    (tmp_path / "oxford_pets/annotations/test.txt").unlink()
    assert f"{tmp_path}/oxford_pets/annotations/test.txt: no such file" in first_line(f"pets:{tmp_path}")
    trees.write(tmp_path / "oxford_pets/annotations/test.txt", "Abyssinian_1\n")
    assert "test.txt, line 1: expected 'PHOTO CLASS" in first_line(f"pets:{tmp_path}")
    trees.sun397(tmp_path / "sun397")
    (tmp_path / "sun397/ClassName.txt").unlink()
    assert f"{tmp_path}/sun397/ClassName.txt" in first_line(f"sun397:{tmp_path}")
    trees.write(tmp_path / "sun397/ClassName.txt", "/a/abbey\n")
    assert "Training_01.txt, line 6: '/a/apartment_building/outdoor'" in first_line(f"sun397:{tmp_path}")
    trees.eurosat(tmp_path / "eurosat")
    trees.save(tmp_path / "eurosat/2750/Rivers/1.jpg")
    assert "Rivers is not a class of EuroSAT; nearest: 'River'" in first_line(f"eurosat:{tmp_path}")
    trees.food101(tmp_path / "food-101")
    (tmp_path / "food-101/meta/train.json").unlink()
    assert f"{tmp_path}/food-101/meta/train.json" in first_line(f"food101:{tmp_path}")
    trees.ucf101(tmp_path / "ucf101")
    trees.write(tmp_path / "ucf101/ucfTrainTestlist/testlist01.txt", "Archerie/v_1.avi\n")
    assert "testlist01.txt, line 1: expected 'ACTION/VIDEO.avi'" in first_line(f"ucf101:{tmp_path}")
    assert "no split 'tset': expected train, val or test; nearest: 'test'" in first_line(f"ucf101:{tmp_path}", "tset")


def test_damaged_matlab_files_are_named(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="MATLAB files need scipy")
    from scipy.io import savemat

    cars = tmp_path / "stanford_cars"
    trees.stanford_cars(cars)
    (cars / "cars_test_annos_withlabels.mat").unlink()
    assert str(cars / "cars_test_annos_withlabels.mat") in first_line(f"cars:{tmp_path}")
    savemat(cars / "cars_test_annos_withlabels.mat", {"annotations": np.zeros(2, dtype=[("fname", object)])})
    assert "has no 'fname' and 'class'" in first_line(f"cars:{tmp_path}")
    (cars / "cars_test_annos_withlabels.mat").write_bytes(b"not a MATLAB file" * 20)
    assert "cannot read" in first_line(f"cars:{tmp_path}")
    trees.oxford_flowers(tmp_path / "oxford_flowers")
    savemat(tmp_path / "oxford_flowers" / "imagelabels.mat", {"label": [1]})
    assert "has no variable 'labels'" in first_line(f"flowers102:{tmp_path}")


def test_generated_files_are_split_files_of_coop(tmp_path: Path) -> None:
    trees.caltech101(tmp_path)
    parts = parts_of(f"caltech101:{tmp_path}")
    document = json.loads((tmp_path / "split_generated_seed1.json").read_text())
    assert [len(document[part]) for part in PARTS] == sizes(parts)
    again = open_images(f"coop:{tmp_path}#split_generated_seed1.json", "test")
    assert again.keys == parts[2].keys
    assert again.labels.tolist() == parts[2].labels.tolist()
    assert "generated split, seed 1" in again.source


def test_each_seed_has_a_file_of_its_own(tmp_path: Path) -> None:
    trees.caltech101(tmp_path)
    reader = classification_entry("caltech101").reader
    assert isinstance(reader, Benchmark)
    first, second = (reader.open(tmp_path, "test", seed=seed) for seed in (1, 2))
    assert first.keys != second.keys
    assert first.names == second.names
    assert "generated split, seed 2" in second.source
    names = sorted(path.name for path in tmp_path.glob("*.json"))
    assert names == ["split_generated_seed1.json", "split_generated_seed2.json"]
    assert open_images(f"caltech101:{tmp_path}", "test").keys == first.keys, "by name it is seed 1"
