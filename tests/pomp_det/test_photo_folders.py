"""Folders of photos as image labels: a class for each, in the detector's ids, ready to train with."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("detectron2")

from pomp_det.data.prepare.photo_folders import photo_folder_labels
from pomp_det.data.records import load_image_labels
from prompt_core import UserError
from prompt_core.files import write_json

CATEGORIES = [{"id": 7, "name": "zebra"}, {"id": 3, "name": "alarm_clock"}, {"id": 5, "name": "bat"}]


def make_photos(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(folder / name)


def test_labels_are_those_of_the_folders(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, "alarm clock/b.png", "alarm clock/a.jpg", "zebra/from_search/c.png", "readme.png")
    (photos / "zebra/broken.jpg").write_bytes(b"nothing")
    document, problems = photo_folder_labels(photos, CATEGORIES)
    found = [(image["id"], image["file_name"], image["pos_category_ids"]) for image in document["images"]]
    assert found == [
        (1, "zebra/from_search/c.png", [7]),
        (2, "alarm clock/a.jpg", [3]),
        (3, "alarm clock/b.png", [3]),
    ]
    assert [(image["width"], image["height"]) for image in document["images"]] == [(20, 10)] * 3
    assert problems.lines() == ["1 photos left out (unreadable): zebra/broken.jpg"]
    write_json(tmp_path / "labels.json", document)
    records, classes, _ = load_image_labels(tmp_path / "labels.json", photos, None)
    assert list(classes.names) == ["alarm_clock", "bat", "zebra"]  # by their ids, as those of the boxes
    assert [record["pos_category_ids"] for record in records] == [[2], [0], [0]]


def test_folders_that_mean_no_class(tmp_path: Path) -> None:
    make_photos(tmp_path, "bats/a.png")
    with pytest.raises(UserError, match=r"bats is of none of the 3 classes; nearest: 'bat'"):
        photo_folder_labels(tmp_path, CATEGORIES)
    (tmp_path / "bats").rename(tmp_path / "alarm clock")
    make_photos(tmp_path, "alarm_clock/a.png")
    with pytest.raises(UserError, match="of the same class as 'alarm clock'"):
        photo_folder_labels(tmp_path, CATEGORIES)
    with pytest.raises(UserError, match="has no photos in folders of classes"):
        photo_folder_labels(tmp_path / "alarm clock", CATEGORIES)
