"""A folder of photos and words in; boxes, masks, crops and files of other tools out, as people run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")

from PIL import Image
from pycocotools import mask as run_lengths

from pomp.models.photo_model import Model

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def one_street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small photo of a street in the current folder."""
    monkeypatch.chdir(tmp_path)
    with Image.open(Path(__file__).resolve().parents[3] / "docs/images/street.jpg") as street:
        street.resize((320, 240)).save(tmp_path / "street.jpg")
    return tmp_path


def document(name: str) -> Any:
    return json.loads(Path(name).read_text(encoding="utf-8"))


def test_boxes_masks_and_crops(one_street: Path, call_pomp: Call, mini_detector: Model) -> None:
    words = ["--words", "bus,car", "--format", "coco"]
    code, out, _ = call_pomp(mini_detector, "detect", "street.jpg", *words, "--crops", "--output", "out")
    assert code == 0
    found = document("out/detections.json")
    described = mini_detector.describe("street.jpg")["detections"]
    assert len(described) >= 2
    assert [(row["bbox"], row["score"], row["area"]) for row in found["annotations"]] == [
        (row["bbox"], row["score"], row["area"]) for row in described
    ]
    assert "index.html" in out
    names = {row["id"]: row["name"] for row in found["categories"]}
    crops = sorted(path.relative_to("out/crops") for path in Path("out/crops").rglob("*.jpg"))
    expected = [(names[row["category_id"]], number) for number, row in enumerate(found["annotations"], start=1)]
    assert crops == sorted(Path(word, f"0001_street_{number:03d}.jpg") for word, number in expected)
    with Image.open(Path("out/crops", expected[0][0], "0001_street_001.jpg")) as crop:
        assert abs(crop.width - found["annotations"][0]["bbox"][2]) < 2
    exported = document("out/coco/annotations.json")
    assert len(exported["annotations"]) == len(described)
    files = {path.name for path in Path("out").iterdir()}
    assert files == {"0001_street.png", "detections.json", "coco", "crops", "gallery", "index.html"}


def test_masks_as_polygons_fill_the_same_pixels(one_street: Path, call_pomp: Call, mini_detector: Model) -> None:
    base = [mini_detector, "detect", "street.jpg", "--words", "bus,car", "--no-pictures"]
    assert call_pomp(*base, "--output", "out")[0] == 0
    assert call_pomp(*base, "--masks", "polygons", "--output", "polygons")[0] == 0
    assert {path.name for path in Path("polygons").iterdir()} == {"detections.json"}
    plain, polygons = document("out/detections.json"), document("polygons/detections.json")
    size = (plain["images"][0]["height"], plain["images"][0]["width"])
    for one, other in zip(plain["annotations"], polygons["annotations"], strict=True):
        merged = run_lengths.merge(run_lengths.frPyObjects(other["segmentation"], *size))
        assert np.array_equal(run_lengths.decode(merged), run_lengths.decode(one["segmentation"]))
        assert one["area"] == other["area"] == run_lengths.area(merged)


def test_label_maps_and_their_words(one_street: Path, call_pomp: Call, mini_segmenter: Model) -> None:
    command = ["segment", "street.jpg", "--words", "bus,road", "--negatives", "building,sky", "--format", "coco"]
    assert call_pomp(mini_segmenter, *command, "--crops", "--output", "out")[0] == 0
    labels = np.asarray(Image.open("out/labels/0001_street.png"))
    (entry,) = document("out/segmentation.json")["images"]
    exported = document("out/coco/annotations.json")
    names = {row["id"]: row["name"] for row in exported["categories"]}
    assert set(names.values()) == {"bus", "road"}
    present = {row["name"]: row["index"] for row in entry["classes"]}
    assert {names[row["category_id"]] for row in exported["annotations"]} == present.keys() & {"bus", "road"} != set()
    for row in exported["annotations"]:
        assert row["area"] == (labels == present[names[row["category_id"]]]).sum()
    assert {path.name for path in Path("out/crops").iterdir()} == present.keys() & {"bus", "road"}


def test_frames_of_a_video(one_street: Path, call_pomp: Call, mini_detector: Model) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = cv2.imread("street.jpg")
    video = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, pixels.shape[1::-1])
    for shift in range(7):
        video.write(np.roll(pixels, 8 * shift, axis=1))
    video.release()
    command = ["detect", "clip.avi", "--every", "0.3s", "--words", "bus", "--format", "yolo", "--output", "out"]
    assert call_pomp(mini_detector, *command)[0] == 0
    found = document("out/detections.json")
    assert [image["file_name"] for image in found["images"]] == [f"clip.avi#{frame:06d}" for frame in (0, 3, 6)]
    assert {path.name for path in Path("out").glob("*.png")} == {
        f"{number:04d}_clip_{frame:06d}.png" for number, frame in ((1, 0), (2, 3), (3, 6))
    }
    # what other tools open, and what the gallery shows, are the frames
    frames = sorted(Path("out/yolo").rglob("*.jpg"))
    assert len(frames) == len(list(Path("out/gallery").glob("*.jpg"))) == 3
    assert frames[1].stat().st_size != frames[2].stat().st_size
    with Image.open(frames[0]) as first, Image.open("street.jpg") as street:
        assert np.abs(np.asarray(first).astype(int) - np.asarray(street).astype(int)).mean() < 8


def test_negatives_need_words(one_street: Path, call_pomp: Call, mini_detector: Model) -> None:
    code, _, error = call_pomp(mini_detector, "detect", "street.jpg", "--negatives", "van", "--output", "out")
    assert (code, error) == (2, "error: --negatives is given without --words; name the words to look for\n")
