"""Data sets by name: aliases, the data root, misspelt names, templates, and what a check says of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from prompt_core.data.catalog.entries import ENTRIES
from prompt_core.data.catalog.entry import ClassificationEntry, Count
from prompt_core.data.catalog.hand_written import SELECTED_TEMPLATES, imagenet_templates, selected_templates
from prompt_core.data.catalog.lookup import CROSS_DATASET, CROSS_DOMAIN, NAMES, classification_entry, find_entry
from prompt_core.data.check import MISSING, PRESENT, WRONG, check_entry, check_group, is_group
from prompt_core.data.images import ImageSet
from prompt_core.data.sources import open_images
from prompt_core.data.splits import base_half, half_of, novel_half
from prompt_core.errors import UserError

from ....support import benchmark_trees as trees

# names in the code of CoOp and POMP
PUBLISHED_NAMES = {
    "Caltech101": "caltech101",
    "OxfordPets": "oxford_pets",
    "StanfordCars": "stanford_cars",
    "OxfordFlowers": "oxford_flowers",
    "Food101": "food101",
    "FGVCAircraft": "fgvc_aircraft",
    "SUN397": "sun397",
    "DescribableTextures": "dtd",
    "EuroSAT": "eurosat",
    "UCF101": "ucf101",
    "ImageNet": "imagenet",
    "ImageNetV2": "imagenet_v2",
    "ImageNetSketch": "imagenet_sketch",
    "ImageNetA": "imagenet_a",
    "ImageNetR": "imagenet_r",
    "ImageNet21K": "imagenet21k",
}


def test_names_and_aliases_are_known_and_unambiguous() -> None:
    for published, name in PUBLISHED_NAMES.items():
        assert classification_entry(published).name == classification_entry(published.upper()).name == name
    assert classification_entry("Flowers102").name == classification_entry("oxford-flowers").name == "oxford_flowers"
    spelt = [spelling for entry in ENTRIES for spelling in (entry.name, *entry.aliases)]
    assert len(set(spelt)) == len(spelt)
    assert all(spelling == spelling.lower() and "-" not in spelling for spelling in spelt)
    assert set(CROSS_DATASET + CROSS_DOMAIN) < set(NAMES)
    assert (len(CROSS_DATASET), len(CROSS_DOMAIN)) == (10, 4)
    assert find_entry("caltech") is not None
    assert find_entry("no_such_set") is None


def test_misspelt_names_get_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("caltech01", "caltech01:/data"):
        with pytest.raises(UserError, match="nearest: 'caltech101'"):
            open_images(text, "test")
    with pytest.raises(UserError, match=r"'dtdd' is unknown; nearest: 'dtd'"):
        classification_entry("dtdd")
    with pytest.raises(UserError, match="expected caltech101:PATH"):
        open_images("caltech101:", "test")
    with pytest.raises(
        UserError, match=r"dtd#oficial: expected #published, #official, #generated; nearest: 'official'"
    ):
        open_images("dtd#oficial", "test")
    with pytest.raises(UserError, match="one division only"):
        open_images("imagenet_a#official", "test")


def test_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.eurosat(tmp_path / "here" / "eurosat")
    monkeypatch.setenv("POMP_DATA", str(tmp_path / "here"))
    images = open_images("EuroSAT", "train")
    assert images.root == tmp_path / "here" / "eurosat" / "2750"
    monkeypatch.setenv("POMP_DATA", str(tmp_path / "other"))
    with pytest.raises(UserError, match=f"expected eurosat at {tmp_path}/other/eurosat: no such folder"):
        open_images("eurosat", "train")
    assert open_images("eurosat", "train", root=tmp_path / "here").keys == images.keys
    monkeypatch.delenv("POMP_DATA")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").rename(tmp_path / "datasets")
    assert open_images("eurosat", "train").keys == images.keys


def test_a_folder_called_like_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.save(tmp_path / "food" / "soup" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POMP_DATA", str(tmp_path / "absent"))
    assert open_images("./food").names == ["soup"]
    assert open_images(Path("food")).names == ["soup"], "a Path is a path"
    with pytest.raises(UserError, match="expected food101 at"):
        open_images("food")


def test_folders_are_recognised(tmp_path: Path) -> None:
    trees.caltech101(tmp_path / "a")
    trees.sun397(tmp_path / "b")
    trees.ucf101(tmp_path / "c")
    trees.fgvc_aircraft(tmp_path / "d" / "fgvc-aircraft-2013b" / "data")
    for folder, name in {"a": "caltech101", "b": "sun397", "c": "ucf101"}.items():
        assert open_images(tmp_path / folder, "test").source.startswith(name)
    assert open_images("fgvc_aircraft", "val", root=tmp_path / "d").names == ["707-320", "A300B4", "C-130"]
    assert open_images(f"aircraft:{tmp_path / 'd'}", "val").labels.tolist() == [0, 1, 2]


def test_the_coop_folder_with_photos_goes_before_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "caltech-101").mkdir()
    trees.caltech101(tmp_path / "caltech101")
    assert open_images("caltech101", "test", root=tmp_path).root == tmp_path / "caltech101" / "101_ObjectCategories"


def test_templates() -> None:
    assert classification_entry("food101").template == "a photo of {}, a type of food."
    assert classification_entry("dtd").template == "{} texture."
    assert classification_entry("imagenet_r").template == classification_entry("sun397").template == "a photo of a {}."
    assert all(entry.template.count("{}") == 1 for entry in ENTRIES)
    assert all(template.count("{}") == 1 for template in (*SELECTED_TEMPLATES, *imagenet_templates()))
    assert len(set(imagenet_templates())) == 80
    assert set(SELECTED_TEMPLATES) < set(imagenet_templates())
    assert classification_entry("eurosat").ensemble == [*SELECTED_TEMPLATES, "a centered satellite photo of {}."]
    assert classification_entry("imagenet_v2").ensemble == list(SELECTED_TEMPLATES)
    selected_templates("own {}").append("more {}")
    assert len(selected_templates("own {}")) == 8, "each call gives a new list"


def image_set(classes: int, photos: int = 6) -> ImageSet:
    names = [f"class_{label}" for label in range(classes)]
    keys = [f"{name}/{number}.jpg" for name in names for number in range(photos)]
    return ImageSet(names, names, np.repeat(np.arange(classes), photos), keys, "test", Path())


@pytest.mark.parametrize(("classes", "base"), [(100, 50), (101, 51), (37, 19), (47, 24), (397, 199), (1, 1)])
def test_base_is_the_first_half_rounded_up(classes: int, base: int) -> None:
    images = image_set(classes)
    first, second = base_half(images), novel_half(images)
    assert first.names + second.names == images.names
    assert len(first.names) == base
    assert len(first) + len(second) == len(images)
    assert sorted(set(second.labels.tolist())) == list(range(classes - base)), "relabelled from 0"
    assert half_of(images, "new").keys == half_of(images, "novel").keys == second.keys
    assert half_of(images, "all") is images
    with pytest.raises(UserError, match="classes 'bas': expected all, base, new, novel; nearest: 'base'"):
        half_of(images, "bas")


def tiny_entry(name: str, classes: int, test: int, official: int | None = None) -> ClassificationEntry:
    """An entry that expects what a tiny tree holds."""
    return dataclasses.replace(
        classification_entry(name),
        classes=Count(classes),
        test=Count(test, seen=True),
        base_test=None,
        official_test=None if official is None else Count(official),
    )


def test_a_check_of_nothing_names_the_path(tmp_path: Path) -> None:
    for entry in ENTRIES:
        (finding,) = check_group(entry.name, tmp_path)
        assert (finding.state, finding.path) == (MISSING, tmp_path / entry.folders[0])
        assert str(finding.path) in finding.advice
        assert "{" not in finding.advice
    assert len(check_group("classification", tmp_path)) == len(ENTRIES) - 1, "without Tiny-ImageNet"
    assert is_group("DTD")
    assert not is_group("lvis")


def test_a_check_counts_against_the_published_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "dtd"
    trees.dtd(folder)
    published, train, val, test = check_group("dtd", tmp_path)
    assert (published.state, published.path) == (MISSING, folder / "split_zhou_DescribableTextures.json")
    assert {part.state for part in (train, val, test)} == {WRONG}
    assert "2 classes, 8 photos" in test.detail
    assert "expected 47 (literature) classes; expected 1,880 (literature) photos; official split" in test.detail
    entry = tiny_entry("dtd", 2, 4, official=8)
    assert [finding.state for finding in check_entry(entry, tmp_path)] == [MISSING, PRESENT, PRESENT, PRESENT]
    rows = [[f"banded/photo_000{number}.jpg", 0, "banded"] for number in (1, 2, 3)]
    dots = [["polka-dotted/photo_0004.jpg", 1, "polka-dotted"]]
    parts: dict[str, list[list[object]]] = {"train": [*rows, *dots], "val": [*rows, *dots], "test": [*rows, *dots]}
    trees.published(folder, "split_zhou_DescribableTextures.json", parts)
    findings = check_entry(entry, tmp_path)
    assert [finding.state for finding in findings] == [PRESENT] * 4
    assert findings[-1].detail == (
        "test: 2 classes, 4 photos, all of them read; "
        "note: 4 photos are in train too, the first is banded/photo_0001.jpg; "
        "note: 4 photos are in val too, the first is banded/photo_0001.jpg; "
        "published split split_zhou_DescribableTextures.json"
    )
    (folder / "images/banded/photo_0003.jpg").write_bytes(b"no photo")
    assert "; 1 cannot be read: banded/photo_0003.jpg; " in check_entry(entry, tmp_path)[-1].detail
    (folder / "images/banded/photo_0003.jpg").unlink()
    findings = check_entry(entry, tmp_path)
    assert len(findings) == 2, "what lacks for each split is said once"
    assert str(folder / "images/banded/photo_0003.jpg") in findings[-1].detail


def test_a_check_counts_the_base_half(tmp_path: Path) -> None:
    trees.eurosat(tmp_path / "eurosat")
    assert "; 10 photos of the first 5 classes, expected 4,200; " in check_group("eurosat", tmp_path)[-1].detail


def test_a_folder_with_a_number_sign(tmp_path: Path) -> None:
    trees.eurosat(tmp_path / "a#b" / "eurosat")
    assert len(open_images(f"eurosat:{tmp_path}/a#b/eurosat", "test")) == 20
    assert len(open_images(f"eurosat:{tmp_path}/a#b/eurosat#generated", "test")) == 20


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    trees.eurosat(tmp_path / "eurosat")
    before = sorted(tmp_path.rglob("*"))
    findings = check_entry(tiny_entry("eurosat", 10, 20), tmp_path)
    assert [finding.state for finding in findings] == [MISSING, PRESENT, PRESENT, PRESENT]
    assert "generated split, seed 1, not the published one" in findings[-1].detail
    assert sorted(tmp_path.rglob("*")) == before


def test_a_check_decodes_some_photos_of_every_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.eurosat(tmp_path / "eurosat")
    read: list[int] = []
    original = ImageSet.read

    def counted(images: ImageSet, index: int) -> object:
        read.append(index)
        return original(images, index)

    monkeypatch.setattr(ImageSet, "read", counted)
    check_group("eurosat", tmp_path)
    assert len(read) == 10 * 5, "small splits are decoded whole"
    read.clear()
    monkeypatch.setattr("prompt_core.data.check_photos.DECODE_ALL", 9)
    check_group("eurosat", tmp_path)
    assert len(read) == 3 * 4, "four photos of every split"


def test_classes_without_photos_are_found(tmp_path: Path) -> None:
    photos = tmp_path / "imagenet-rendition" / "imagenet-r"
    trees.save(photos / "n01440764" / "a.jpg")
    (photos / "n01443537").mkdir()
    (finding,) = check_entry(tiny_entry("imagenet_r", 2, 1), tmp_path)
    assert finding.state == WRONG
    assert "1 classes have no photos, the first is 'goldfish'" in finding.detail
