"""Training labels of the embedded segmenter out of panoptic labels, polygons and VOC's label images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("detectron2")

from pomp_lab.mini_segmenter.make import make_labels
from pomp_lab.mini_segmenter.pixel_labels import (
    IGNORE,
    VOC_SPELLINGS,
    Labelled,
    from_masks,
    from_panoptic,
    from_voc,
    plain_names,
    write,
)
from pomp_seg.data.label_sets import label_set
from prompt_core import UserError


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def test_names_are_said_plainly_and_once() -> None:
    names = plain_names(list(label_set("coco_panoptic").vocabulary.names)) + list(VOC_SPELLINGS)
    assert len(names) == len(set(names)) == 139
    assert not [name for name in names if "-" in name]
    assert {"sky", "tree", "brick wall", "dining table", "diningtable"} <= set(names)
    assert set(label_set("voc").vocabulary.names) <= set(names)


def test_small_things_lie_over_large_ones(tmp_path: Path) -> None:
    def square(start: int, stop: int, category: int, area: float) -> dict[str, object]:
        corners = [start, start, stop, start, stop, stop, start, stop]
        return {"image_id": 1, "category_id": category, "area": area, "segmentation": [corners]}

    crowd = {"image_id": 1, "category_id": 9, "area": 1e6, "segmentation": {"counts": [0], "size": [9, 9]}}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 10}],
        "annotations": [square(2, 4, 9, 4.0), square(1, 8, 4, 49.0), crowd],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
    }
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(document))
    (example,) = from_masks(tmp_path, file, "photos")
    assert example.photo == tmp_path / "photos/a.jpg"
    assert example.labels.shape == (12, 10)
    assert (example.labels[3, 3], example.labels[6, 6], example.labels[10, 9]) == (1, 0, IGNORE)  # in the order of ids


def test_labels_of_voc_become_those_of_the_list(tmp_path: Path) -> None:
    save(tmp_path / "labels/x.png", np.array([[0, 1, 2, 255]], np.uint8))
    listed = tmp_path / "train.txt"
    listed.write_text("x\n")
    (example,) = from_voc(tmp_path / "labels", tmp_path / "photos", listed, [7, 5])
    assert example.labels.tolist() == [[IGNORE, 7, 5, IGNORE]]


def test_photos_are_copied_beside_their_labels(tmp_path: Path) -> None:
    photo = save(tmp_path / "coco128/train2017/1.jpg", np.zeros((4, 5, 3), np.uint8))
    labels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    save(tmp_path / "coco_small_seg/train/1.png", labels)
    assert write(from_panoptic(tmp_path, "train"), tmp_path / "out", "coco") == 1
    assert (tmp_path / "out/photos/coco_1.jpg").read_bytes() == photo.read_bytes()
    assert np.asarray(Image.open(tmp_path / "out/labels/coco_1.png")).tolist() == labels.tolist()
    absent = Labelled(tmp_path / "no.jpg", labels)
    with pytest.raises(UserError, match=r"no\.jpg does not exist"):
        write(iter([absent]), tmp_path / "out", "coco")


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="coco_small_seg/train does not exist"):
        make_labels(tmp_path)
    assert not (tmp_path / "mini_seg").exists()
