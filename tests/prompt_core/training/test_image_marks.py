"""Images that chose an epoch are recognised wherever they lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prompt_core.data.sources import open_images
from prompt_core.errors import UserError
from prompt_core.training.image_marks import any_marked, image_marks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures of each of two classes, all of one size in bytes."""
    for name in ("cat", "dog"):
        for index in range(3):
            path = tmp_path / "photos" / name / f"{index}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            value = 10 * index + (100 if name == "dog" else 0)
            Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def test_a_part_a_copy_and_a_renamed_file_are_recognised(root: Path, tmp_path: Path) -> None:
    images = open_images(f"folder:{root}", "val")
    marks = image_marks(images)
    assert any_marked(images, marks)
    assert any_marked(images.subset([4]), marks)
    assert any_marked(images.select_classes([1]), marks)
    (tmp_path / "other/pet").mkdir(parents=True)
    shutil.copy(root / "dog/2.bmp", tmp_path / "other/pet/new.bmp")
    assert any_marked(open_images(f"folder:{tmp_path / 'other'}", "val"), marks)


def test_other_images_of_the_same_name_and_size_are_not(root: Path, tmp_path: Path) -> None:
    images = open_images(f"folder:{root}", "val")
    assert not any_marked(images.subset([0, 1, 2]), image_marks(images.subset([3, 4, 5])))
    marks = image_marks(images)
    shutil.copytree(root, tmp_path / "inverted")
    for path in (tmp_path / "inverted").glob("*/*.bmp"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    other = open_images(f"folder:{tmp_path / 'inverted'}", "val")
    assert other.keys == images.keys
    assert other.fingerprint() == images.fingerprint()
    assert not any_marked(other, marks)


def test_a_large_set_keeps_a_share_of_its_marks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_images(f"folder:{root}", "val")
    monkeypatch.setattr("prompt_core.training.image_marks.MOST", 2)
    marks = image_marks(images)
    assert any_marked(images, marks)
    assert sum(any_marked(images.subset([index]), marks) for index in range(6)) == 2


def test_absent_files_have_no_mark(root: Path) -> None:
    images = open_images(f"folder:{root}", "val")
    whole = image_marks(images)
    (root / "cat/0.bmp").unlink()
    assert len(image_marks(images)) < len(whole)
    assert not any_marked(images.subset([0]), whole)
    assert image_marks(images.subset([0])) == ""
    assert not any_marked(images, "")


@pytest.mark.parametrize("marks", ["AAAA", "no base64"])
def test_damaged_marks_are_one_line(root: Path, marks: str) -> None:
    with pytest.raises(UserError, match="images that chose the epoch are"):
        any_marked(open_images(f"folder:{root}", "val"), marks)
