"""Tools that read these formats find in them what was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pomp.formats.formats import each, read_corrections, write_formats
from pomp.formats.labelled import LabelledObject, LabelledPhoto
from pomp.formats.mask_shapes import mask_of_pixels, pixels_of_mask

supervision = pytest.importorskip("supervision")

WORDS = ["dog", "犬 <b>&", "cat: #1"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledPhoto]:
    """Two photos with a box, and with a mask that has a hole and two parts."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.zeros((60, 80), dtype=bool)
    pixels[10:40, 20:50] = True
    pixels[20:30, 30:40] = False
    pixels[45:55, 60:70] = True
    things = (
        LabelledObject("cat: #1", (20, 10, 50, 45), 0.75, mask_of_pixels(pixels)),
        LabelledObject("犬 <b>&", (0, 0, 80, 60), 0.5, mask_of_pixels(np.ones((60, 80), dtype=bool))),
    )
    found = []
    for name, seen in (("a.jpg", things), ("b.jpg", things[1:])):
        Image.new("RGB", (80, 60), (90, 120, 30)).save(folder / name)
        found.append(LabelledPhoto(name, 80, 60, seen, path=folder / name))
    return found


def test_pycocotools(photos: list[LabelledPhoto], tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    for kind in ("coco", "coco-polygons"):
        (place,) = write_formats([kind], each(photos), WORDS, tmp_path)
        read = COCO(str(place / "annotations.json"))
        assert [row["name"] for row in read.loadCats(read.getCatIds())] == WORDS
        rows = read.loadAnns(read.getAnnIds())
        for row, item in zip(rows, [item for photo in photos for item in photo.objects], strict=True):
            assert item.mask is not None
            assert (read.annToMask(row).astype(bool) == pixels_of_mask(item.mask)).all()
            assert row["area"] == pixels_of_mask(item.mask).sum()
            assert row["bbox"] == list(item.box)


def test_supervision(photos: list[LabelledPhoto], tmp_path: Path) -> None:
    coco, yolo, masks, voc = write_formats(["coco", "yolo", "yolo-masks", "voc"], each(photos), WORDS, tmp_path)
    sets = supervision.DetectionDataset
    folder = str((photos[0].path or Path()).parent)
    read = {
        "coco": sets.from_coco(folder, str(coco / "annotations.json"), force_masks=True),
        "yolo": sets.from_yolo(str(yolo / "images"), str(yolo / "labels"), str(yolo / "data.yaml")),
        "masks": sets.from_yolo(str(masks / "images"), str(masks / "labels"), str(masks / "data.yaml")),
        "voc": sets.from_pascal_voc(str(voc / "JPEGImages"), str(voc / "Annotations")),
    }
    for kind, found in read.items():
        assert len(found) == 2
        in_order = sorted(found, key=lambda entry: Path(entry[0]).name)
        for photo, (_, pixels, detections) in zip(photos, in_order, strict=True):
            assert pixels.shape == (60, 80, 3)
            names = [found.classes[number] for number in detections.class_id]
            assert names == [item.word for item in photo.objects]
            corners = [(x, y, x + width, y + height) for x, y, width, height in (item.box for item in photo.objects)]
            assert np.abs(detections.xyxy - np.array(corners)).max() <= 0.01, kind
    masks_of = {Path(path).name: detections.mask for path, _, detections in read["coco"]}
    assert (masks_of["a.jpg"][0] == pixels_of_mask(photos[0].objects[0].mask or {})).all()


def test_exports_of_label_studio(tmp_path: Path) -> None:
    # the kinds of regions that its editor makes; a rectangle is turned clockwise around its upper left corner
    common = {"original_width": 200, "original_height": 100, "image_rotation": 0, "to_name": "image", "from_name": "x"}
    place = {"x": 50, "y": 20, "width": 10, "height": 40}
    results = [
        {"type": "rectanglelabels", "value": {**place, "rotation": 0, "rectanglelabels": ["dog"]}},
        {"type": "rectanglelabels", "value": {**place, "rotation": 90, "rectanglelabels": ["dog"]}},
        {"type": "polygonlabels", "value": {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["cat"]}},
        {"type": "ellipselabels", "value": {"x": 1, "y": 1, "radiusX": 2, "ellipselabels": ["cat"]}},
        {"type": "choices", "value": {"choices": ["none of these"]}},
    ]
    said = [{**result, **common} for result in results]
    wrong = [{"result": [{**said[0], "score": 0.5}]}]
    tasks = [
        {"data": {"image": "/data/upload/3/0a1b2c3d-a.jpg"}, "annotations": [{"result": said}], "predictions": wrong},
        {"data": {"image": "/data/local-files/?d=some%20folder/b.jpg"}, "predictions": wrong},
        {"data": {"image": "https://example.org/c.jpg"}, "annotations": [{"result": [], "was_cancelled": True}]},
    ]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    found = read_corrections(tmp_path / "a.json")
    assert [photo.name for photo in found.photos] == ["a.jpg", "some folder/b.jpg", "c.jpg"]
    boxes = [item.box for item in found.photos[0].objects]
    assert boxes[:2] == [(100, 20, 20, 40), pytest.approx((60, 20, 40, 20))]
    assert boxes[2] == (0, 0, 100, 50)
    assert found.photos[0].words == ()
    assert found.notes == ("1 regions of the kind ellipselabels left out",)
    assert [photo.predicted for photo in found.photos] == [False, True, True]


def test_boxes_of_cvat_that_are_turned(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<?xml version="1.0"?><annotations><version>1.1</version><image id="3" name="x/a.jpg" width="100" height="100">'
        '<box label="dog" xtl="40" ytl="45" xbr="60" ybr="55" rotation="90"/>'
        '<polygon label="cat" points="1,1;5,1;5,9"/><polyline label="cat" points="1,1;5,1"/>'
        "</image></annotations>"
    )
    found = read_corrections(tmp_path / "a.xml")
    assert found.kind == "cvat"
    assert found.photos[0].objects[0].box == pytest.approx((45, 40, 10, 20))
    assert found.photos[0].objects[1].mask is not None
    assert found.notes == ("1 shapes of the kind polyline left out",)


def test_labels_of_yolo_without_a_table(tmp_path: Path) -> None:
    # as Ultralytics and Label Studio leave them: sizes are those of the photos, which may be elsewhere
    (tmp_path / "yolo/labels").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "photos/a.jpg")
    (tmp_path / "yolo/classes.txt").write_text("cat\ndog\n")
    (tmp_path / "yolo/labels/0a1b2c3d-a.txt").write_text("1 0.5 0.5 0.25 0.5 0.9\n0 0 0 0.5 0 0.5 0.5\n")
    found = read_corrections(tmp_path / "yolo", tmp_path / "photos")
    photo = found.photos[0]
    assert (photo.name, photo.path, photo.width) == ("a.jpg", tmp_path / "photos/a.jpg", 80)
    assert photo.objects[0] == LabelledObject("dog", (30, 15, 20, 30), 0.9)
    assert photo.objects[1].word == "cat"
    assert photo.objects[1].mask is not None


def test_folders_of_words(tmp_path: Path) -> None:
    for name in ("old oak", "none of these"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 6)).save(tmp_path / name / "a.png")
    found = read_corrections(tmp_path)
    assert {photo.name: photo.words for photo in found.photos} == {
        "none of these/a.png": (),
        "old oak/a.png": ("old oak",),
    }
    assert all(photo.path is not None and photo.width == 8 for photo in found.photos)
    assert found.words == ("old oak",)
