"""Crops of annotated boxes: which boxes, which pixels, under which names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pomp_lab.mini_clip import box_crops
from pomp_lab.mini_clip.box_crops import in_plain_words, jittered, scored_regions, training_regions, whole_photos
from prompt_core.errors import UserError

WIDTH, HEIGHT = 40, 30
Write = Callable[..., tuple[Path, Path]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes photos in which a pixel's red is its column and green its row, and their annotations."""

    def write(rows: Sequence[dict[str, Any]], names: Sequence[str], stem: str = "boxes") -> tuple[Path, Path]:
        column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
        pixels = np.stack([column, row, np.zeros_like(row)], axis=2).astype(np.uint8)
        images = []
        for number in (1, 2):
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
            images.append({"id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"{number}.png"})
        categories = [{"id": 3 * place + 1, "name": name} for place, name in enumerate(names)]
        annotations = [{"id": place, "image_id": 1, "iscrowd": 0, **row} for place, row in enumerate(rows)]
        path = tmp_path / f"{stem}.json"
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        return path, tmp_path

    return write


def extent(crop: Image.Image) -> tuple[int, int, int, int]:
    """First column, first row, width and height of a crop of these photos."""
    pixels = np.asarray(crop)
    return int(pixels[0, 0, 0]), int(pixels[0, 0, 1]), crop.width, crop.height


def test_scored_crops_have_a_margin_and_plain_words(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"bbox": [4.5, 3.2, 10.0, 20.0], "category_id": 4, "image_id": 2},
        {"bbox": [0.0, 0.0, 9.0, 9.0], "category_id": 1, "iscrowd": 1},
        {"bbox": [0.0, 0.0, 9.0, 9.0], "category_id": 1, "ignore": 1},
        {"bbox": [30.0, 20.0, 10.0, 10.0], "category_id": 1},
        {"bbox": [20.0, 2.0, 10.0, 7.0], "category_id": 1},
    ]
    monkeypatch.setattr(box_crops, "LARGE", 8.0)
    crops, small = scored_regions(*write(rows, ["dog", "tvmonitor"])).values()
    assert [extent(small.read(row)) for row in range(len(small))] == [(19, 1, 12, 9)]
    assert crops.names == crops.ids == ["dog", "tv"]
    assert crops.labels.tolist() == [0, 1]
    assert extent(crops.read(0)) == (29, 19, 11, 11)  # one pixel more, where there is one
    assert extent(crops.read(1)) == (3, 1, 13, 25)
    assert whole_photos(crops).keys == ["1.png", "2.png"]


def test_a_second_file_counts_by_the_classes_of_the_first(write: Write) -> None:
    row = {"bbox": [0.0, 0.0, 9.0, 9.0]}
    first = write([{**row, "category_id": 1}], ["couch", "aeroplane"], "first")
    boxes = [{**row, "category_id": 1}, {**row, "category_id": 4}, {"bbox": [0.0, 0.0, 9.0, 3.0], "category_id": 4}]
    one, two = training_regions([first, write(boxes, ["aeroplane", "sofa"], "second")])
    assert one.names == two.names == ["couch", "airplane"]
    assert two.labels.tolist() == [1, 0]  # the last box is too small
    assert extent(two.read(0)) == (0, 0, 9, 9)
    own = in_plain_words(two, ["airplane", "couch", "dog"])
    assert [own.names[label] for label in own.labels] == ["airplane", "couch"]
    with pytest.raises(UserError, match=r"zebra\.json: class 'zebra' is not one of the 2 of the first file"):
        training_regions([first, write([{**row, "category_id": 1}], ["zebra"], "zebra")])


def test_crops_to_learn_from_stay_about_their_box(write: Write) -> None:
    row = {"bbox": [10.0, 12.0, 12.0, 6.0], "category_id": 1}
    (crops,) = training_regions([write([row, {**row, "image_id": 2}], ["dog"])])
    many = jittered(crops, 50, seed=1)
    assert [key.partition("#")[0] for key in many.keys] == ["1.png"] * 50 + ["2.png"] * 50
    assert np.array_equal(many.boxes, jittered(crops, 50, seed=1).boxes)
    assert not np.array_equal(many.boxes, jittered(crops, 50, seed=2).boxes)
    assert len(np.unique(many.boxes, axis=0)) == 100
    centre = many.boxes[:, :2] + many.boxes[:, 2:] / 2 - (16, 15)
    assert np.abs(centre / (12, 6)).max() <= 0.1 + 1e-9
    width, height = many.boxes[:, 2], many.boxes[:, 3]
    assert 12 * 0.9 - 1e-9 <= width.min() < width.max() <= 12 * 1.7 + 1e-9
    square = np.isclose(width, height)
    assert np.allclose(width[~square], 2 * height[~square])
    assert 15 <= square.sum() <= 55
    assert 15 <= many.squeezed.sum() <= 55
    assert not (square & many.squeezed).any()
    for number in range(0, 100, 9):
        crop = many.read(number)
        assert min(crop.size) >= 1
        assert crop.width == crop.height or not many.squeezed[number]
    few = many.subset(np.flatnonzero(many.squeezed)[:2])
    assert few.read(1).width == few.read(1).height
    everything_squeezed = dataclasses.replace(many, squeezed=np.ones(100, dtype=bool))
    assert len({images.fingerprint() for images in (crops, many, few, everything_squeezed)}) == 4
