"""Files of labels from outside: bounded, one line for what is wrong, and no way out of their folder."""

from __future__ import annotations

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from pomp.formats.formats import each, format_names, read_corrections, write_formats
from pomp.formats.labelled import LabelledObject, LabelledPhoto
from prompt_core.errors import UserError

IMAGE: dict[str, Any] = {"id": 1, "file_name": "a.jpg", "width": 20, "height": 10}
BOX: dict[str, Any] = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}


def coco(**changes: Any) -> str:
    return json.dumps({"images": [IMAGE], "categories": [{"id": 1, "name": "dog"}], "annotations": [BOX]} | changes)


def task(**result: Any) -> str:
    whole = {"type": "rectanglelabels", "value": {}, "original_width": 20, "original_height": 10} | result
    return json.dumps([{"data": {"image": "a.jpg"}, "annotations": [{"result": [whole]}]}])


def sample(**detection: Any) -> str:
    whole = {"label": "dog", "bounding_box": [0.1, 0.1, 0.5, 0.5]} | detection
    truth = {"_cls": "Detections", "detections": [whole]}
    metadata = {"width": 20, "height": 10}
    return json.dumps({"samples": [{"filepath": "data/a.jpg", "metadata": metadata, "ground_truth": truth}]})


def packed(content: bytes) -> dict[str, Any]:
    return {"$binary": {"base64": base64.b64encode(zlib.compress(content)).decode("ascii"), "subType": "00"}}


HUGE_HEADER = b"{'descr': '|b1', 'fortran_order': False, 'shape': (99999999, 99999999), }"
HUGE_ARRAY = b"\x93NUMPY\x01\x00v\x00" + HUGE_HEADER.ljust(117) + b"\n"
LARGE_BRUSH = {"rle": [255] * 30, "brushlabels": ["a"]}
FAR_RUNS = BOX | {"segmentation": {"size": [9**6, 9**6], "counts": "0"}}
LONG_RUNS = BOX | {"segmentation": {"size": [10, 20], "counts": [9**9]}}
LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><annotations>&b;</annotations>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>'
CVAT = '<annotations><image id="0" name="a.jpg" width="20" height="10">{}</image></annotations>'
MASK = '<mask label="a" rle="{}" left="{}" top="0" width="2" height="2"/>'
VOC = "<annotation><filename>a.jpg</filename><size><width>{}</width><height>10</height></size>{}</annotation>"
VOC_BOX = "<object><name>dog</name><bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>"

HOSTILE = {
    "coco, a box of text": (coco(annotations=[BOX | {"bbox": "x"}]), "bbox"),
    "coco, a box that is not finite": (coco(annotations=[BOX | {"bbox": [float("nan"), 0, 1, 1]}]), "bbox"),
    "coco, an unknown image": (coco(annotations=[BOX | {"image_id": 9}]), "image 9, which is not listed"),
    "coco, runs of another size": (
        coco(annotations=[FAR_RUNS]),
        "size",
    ),
    "coco, runs beyond the image": (
        coco(annotations=[LONG_RUNS]),
        "fill",
    ),
    "coco, a word of two lines": (coco(categories=[{"id": 1, "name": "a\nb"}]), "no word"),
    "coco, a list that is none": (coco(images={"a": 1}), "a list is expected"),
    "coco, boxes without a size": (coco(images=[{"id": 1, "file_name": "a.jpg"}]), "no width and height"),
    "coco, a photo beyond all": (coco(images=[IMAGE | {"width": 10**6, "height": 10**6}]), "POMP_MAX_PIXELS"),
    "json, too deep": ("[" * 200_000, "nested too deeply"),
    "json of something else": ('{"a": 1}', "unknown format"),
    "json, broken off": ('{"images": [', "not valid JSON"),
    "tasks, a brush of another size": (
        task(type="brushlabels", value=LARGE_BRUSH),
        "brush",
    ),
    "tasks, a brush of large bytes": (task(type="brushlabels", value={"rle": [999], "brushlabels": ["a"]}), "0 to 255"),
    "tasks, without a size": (task(original_width=None, value={"x": 1, "rectanglelabels": ["a"]}), "original_width"),
    "tasks, not objects": ("[1, 2]", "an object is expected"),
    "tasks, a photo beyond all": (task(original_width=10**6, original_height=10**6), "POMP_MAX_PIXELS"),
    "samples, a mask with objects": (sample(mask=packed(b"\x93NUMPY\x01\x00\x10\x00{'descr': '|O'}\n")), "mask"),
    "samples, a mask that claims much": (sample(mask=packed(HUGE_ARRAY)), "claims"),
    "samples, a mask of a bomb": (sample(mask=packed(b"\0" * 10_000_000)), "larger than its photo"),
    "xml, entities of entities": (LAUGHS, "document type"),
    "xml, another file": (OUTSIDE, "document type"),
    "xml, too deep": ("<annotations>" + "<a>" * 100 + "</a>" * 100 + "</annotations>", "levels"),
    "xml, broken off": ("<annotations><image", "not valid XML"),
    "xml of something else": ("<html></html>", "no XML of CVAT"),
    "cvat, a photo beyond all": (CVAT.replace("20", "999999").format("").replace("10", "999999"), "POMP_MAX_PIXELS"),
    "cvat, no number": (CVAT.format('<box label="a" xtl="x" ytl="0" xbr="1" ybr="1"/>'), "number of pixels"),
    "cvat, runs of another size": (
        CVAT.format(MASK.format(9999999, 0)),
        "fill",
    ),
    "cvat, a mask outside": (CVAT.format(MASK.format(4, 19)), "fill"),
    "cvat, no word": (CVAT.format('<box label=" " xtl="0" ytl="0" xbr="1" ybr="1"/>'), "no word"),
    "voc, a size beyond all": (VOC.format(10**12, ""), "pixels"),
    "voc, a box that ends first": (VOC.format(20, VOC_BOX.format(9)), "ends before"),
    "voc, not finite": (VOC.format(20, VOC_BOX.format("inf")), "number of pixels"),
    "csv, a photo twice": ("file,word\na.jpg,dog\na.jpg,cat\n", "again"),
    "csv, no photo": ("file,word\n,dog\n", "names no photo"),
    "zip": ("PK\x03\x04rest", "unpack it"),
    "bytes": ("abc\0def", "no file of labels"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_one_line_says_what_is_wrong(case: str, tmp_path: Path) -> None:
    content, expected = HOSTILE[case]
    (tmp_path / "labels").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_corrections(tmp_path / "labels")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.1", "7 0.5 0.5 0.1 0.1", "-1 0 0 1 1", "0 a 0 1 1", "0 inf 0 1 1", "x"])
def test_lines_of_yolo_that_are_no_labels(line: str, tmp_path: Path) -> None:
    (place,) = write_formats(["yolo"], each([LabelledPhoto("a.jpg", 10, 10)]), ["dog"], tmp_path)
    (place / "labels" / "a.txt").write_text(line)
    with pytest.raises(UserError, match=r"a\.txt, line 1"):
        read_corrections(place)


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"")
    inner = tmp_path / "in"
    inner.mkdir()
    names = ["../secret.jpg", str(tmp_path / "secret.jpg")]
    images = [IMAGE | {"id": number, "file_name": name} for number, name in enumerate(names)]
    (inner / "a.json").write_text(coco(images=images, annotations=[]))
    for folder in (None, inner):
        assert [photo.path for photo in read_corrections(inner / "a.json", folder).photos] == [None, None]


def test_boxes_end_at_their_photo(tmp_path: Path) -> None:
    boxes = [BOX | {"bbox": box} for box in ([-5, -5, 100, 100], [50, 50, 5, 5], [1, 1, 0, 3])]
    (tmp_path / "a.json").write_text(coco(annotations=boxes))
    found = read_corrections(tmp_path / "a.json")
    assert [item.box for item in found.photos[0].objects] == [(0, 0, 20, 10)]
    assert found.notes == ("2 boxes without extent left out",)


def test_a_changed_folder_is_not_replaced(tmp_path: Path) -> None:
    photos = each([LabelledPhoto("a.jpg", 10, 10, (LabelledObject("dog", (1, 1, 5, 5)),))])
    (place,) = write_formats(["yolo"], photos, ["dog"], tmp_path)
    write_formats(["yolo"], photos, ["dog"], tmp_path)  # what nobody has changed is
    label = place / "labels" / "a.txt"
    label.write_text("0 0.1 0.1 0.1 0.1\n")
    later = (place / "photos.csv").stat().st_mtime + 10
    os.utime(label, (later, later))
    with pytest.raises(UserError, match="no correction is lost"):
        write_formats(["yolo"], photos, ["dog"], tmp_path)
    assert label.read_text() == "0 0.1 0.1 0.1 0.1\n"
    other = tmp_path / "voc"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not from an earlier run"):
        write_formats(["voc"], photos, ["dog"], tmp_path)


def test_nothing_is_left_of_a_folder_that_failed(tmp_path: Path) -> None:
    photos = each([LabelledPhoto("a.jpg", 10, 10, (LabelledObject("dog", (1, 1, 5, 5)),))])
    with pytest.raises(UserError, match="need masks"):
        write_formats(["class-ids"], photos, ["dog"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_are_named() -> None:
    with pytest.raises(UserError, match="nearest: 'yolo'"):
        format_names("coco,yoloo")
