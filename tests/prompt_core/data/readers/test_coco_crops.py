"""Boxes of COCO files as labelled crops, and crops joined with photos over one list of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prompt_core.data.feature_cache import cached_features
from prompt_core.data.joined import JoinedImages, join_images
from prompt_core.data.readers.coco_crops import Crops, read_crops
from prompt_core.data.sources import open_images
from prompt_core.data.splits import few_shot
from prompt_core.errors import UserError
from prompt_core.vocabulary import vocabulary_of

RED, BLUE = (200, 10, 10), (10, 10, 200)


def annotations(**changes: Any) -> dict[str, Any]:
    """Two photos: a red ball and a blue cap in the first, a crowd, a difficult box and a flat one in the second."""
    document: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "in/b.png"}, {"id": 3, "file_name": "in/a.png"}],
        "categories": [{"id": 9, "name": "red ball"}, {"id": 4, "name": "cap"}, {"id": 5, "name": "never"}],
        "annotations": [
            {"id": 20, "image_id": 3, "category_id": 9, "bbox": [2.5, 4, 10, 6]},
            {"id": 11, "image_id": 3, "category_id": 4, "bbox": [20, 10, 12, 10], "segmentation": []},
            {"id": 12, "image_id": 7, "category_id": 9, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"id": 13, "image_id": 7, "category_id": 9, "bbox": [0, 0, 9, 9], "ignore": 1},
            {"id": 14, "image_id": 7, "category_id": 9, "bbox": [3, 3, 0, 9]},
            {"id": 15, "image_id": 7, "category_id": 4, "bbox": [30, 20, 40, 40]},
        ],
    }
    return document | changes


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """A folder with the photos and ``boxes.json``."""
    (tmp_path / "in").mkdir()
    photo = Image.new("RGB", (40, 30), "white")
    photo.paste(RED, (2, 4, 13, 10))
    photo.paste(BLUE, (20, 10, 32, 20))
    for name in ("a", "b"):
        photo.save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "boxes.json").write_text(json.dumps(annotations()))
    return tmp_path


def test_each_box_is_an_image_of_its_category(boxes: Path) -> None:
    crops = read_crops(boxes, boxes / "boxes.json", margin=0)
    assert crops.names == crops.ids == ["cap", "never", "red ball"], "a class without a box is a class"
    assert crops.keys == ["in/a.png#11", "in/a.png#20", "in/b.png#15"]
    assert crops.labels.tolist() == [0, 2, 0]
    ball = np.asarray(crops.read(1))
    assert ball.shape == (6, 11, 3), "whole pixels from 2 to 13"
    assert (ball == RED).all()
    assert (np.asarray(crops.read(0)) == BLUE).all()
    assert crops.read(2).size == (10, 10), "what is outside the photo is cut off"
    assert read_crops(boxes, boxes / "boxes.json", 0, smallest=7).keys == ["in/a.png#11", "in/b.png#15"]


def test_a_margin_is_a_share_of_the_box_on_each_side(boxes: Path) -> None:
    crops = open_images(f"coco_crops:{boxes}#boxes.json#margin=0.5")
    assert isinstance(crops, Crops)
    assert crops.boxes[0].tolist() == [14, 5, 24, 20]
    assert crops.read(0).size == (24, 20)
    default = open_images(f"coco_crops:{boxes}#{boxes / 'boxes.json'}")
    assert isinstance(default, Crops)
    np.testing.assert_allclose(default.boxes[0], [18.8, 9, 14.4, 12])
    assert default.fingerprint() != crops.fingerprint(), "other pixels have other features"


def test_parts_of_crops_stay_crops(boxes: Path) -> None:
    crops = read_crops(boxes, boxes / "boxes.json", margin=0)
    part = crops.select_classes([2])
    assert isinstance(part, Crops)
    assert (part.names, part.keys, part.labels.tolist()) == (["red ball"], ["in/a.png#20"], [0])
    assert (np.asarray(part.read(0)) == RED).all()
    size = (boxes / "in/a.png").stat().st_size
    assert few_shot(crops, 1, 0).file_sizes().tolist() == [size, size]


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.floats(-1e5, 1e5) for _ in range(2)]),
    st.tuples(*[st.floats(1e-6, 1e5) for _ in range(2)]),
    st.floats(0, 3),
)
def test_any_box_has_a_pixel_at_least(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[float, ...], extent: tuple[float, ...], margin: float
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_box"
    folder.mkdir(exist_ok=True)
    if not (folder / "x.png").is_file():
        Image.new("RGB", (5, 4)).save(folder / "x.png")
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [*place, *extent]}
    document = {"images": [{"id": 1, "file_name": "x.png"}], "categories": [{"id": 1, "name": "x"}]}
    (folder / "x.json").write_text(json.dumps({**document, "annotations": [one]}))
    width, height = read_crops(folder, folder / "x.json", margin).read(0).size
    assert 1 <= width <= 5
    assert 1 <= height <= 4


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (annotations(annotations=[]), "has no box to crop"),
        ({"images": []}, "has no 'categories'"),
        (annotations(images=[{"id": 3, "file_name": "../a.png"}]), "leads out of the data set's folder"),
        (annotations(images=[{"id": 3, "file_name": "in/a.png"}]), "annotation 15 is of image 7"),
        (annotations(categories=[{"id": 9, "name": "x"}]), "annotation 11 is of category 4"),
        (annotations(images=[{"id": 7, "file_name": "no.png"}, {"id": 3, "file_name": "in/a.png"}]), "no.png"),
        (annotations(annotations=[{"id": 1, "image_id": 3, "category_id": 9, "bbox": [1, 2]}]), "annotations[0].bbox"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(boxes: Path, document: Any, words: str) -> None:
    (boxes / "boxes.json").write_text(json.dumps(document))
    with pytest.raises(UserError) as refused:
        open_images(f"coco_crops:{boxes}#boxes.json")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "names no annotations; expected coco_crops:FOLDER#FILE.json"),
        ("{}#", "names no annotations"),
        ("{}/nowhere#boxes.json", "no such folder"),
        ("{}#other.json", "no such file"),
        ("{}#boxes.json#margins=1", "no option 'margins'; expected margin or smallest; nearest: 'margin'"),
        ("{}#boxes.json#margin=-1", "margin is '-1'; expected a number of 0 or more"),
        ("{}#boxes.json#smallest=x", "smallest is 'x'"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(boxes: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        open_images(f"coco_crops:{text.format(boxes)}")
    assert words in str(refused.value)


@pytest.fixture
def joined(boxes: Path) -> JoinedImages:
    """Photos of folders named by WordNet ids and words, and the crops."""
    for name, colour in (("cap", BLUE), ("sea", BLUE)):
        (boxes / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9), colour).save(boxes / "photos" / name / "1.png")
    both = open_images(f"folder:{boxes / 'photos'} + coco_crops:{boxes}#boxes.json#margin=0")
    assert isinstance(both, JoinedImages)
    return both


def test_joined_sets_share_classes_of_one_name(joined: JoinedImages, boxes: Path) -> None:
    assert joined.names == ["cap", "sea", "never", "red ball"]
    assert joined.labels.tolist() == [0, 1, 0, 3, 0]
    assert joined.keys[0] == "photos/cap/1.png"
    assert joined.keys[2] == "in/a.png#11"
    assert [joined.read(index).size for index in range(5)] == [(9, 9), (9, 9), (12, 10), (11, 6), (10, 10)]
    part = joined.select_classes([3, 1])
    assert part.labels.tolist() == [1, 0]
    assert [part.read(index).size for index in range(2)] == [(9, 9), (11, 6)]
    assert (joined.file_sizes() > 0).all()
    (boxes / "wide.txt").write_text("sea\noak\nCap\n")
    vocabulary, rows = vocabulary_of(joined, str(boxes / "wide.txt"))
    assert vocabulary.names == ["sea", "oak", "Cap", "never", "red ball"], "a name that the list lacks is appended"
    assert rows.tolist() == [2, 0, 3, 4]


def test_ids_join_before_names_do(joined: JoinedImages, boxes: Path) -> None:
    crops = joined.parts[1]
    same = join_images([crops, joined.parts[0]])
    assert same.names == ["cap", "never", "red ball", "sea"]
    assert join_images([crops]) is crops
    with pytest.raises(UserError, match=r"in/a.png#11 is in two of the sets"):
        join_images([crops, crops])


def test_the_content_of_joined_sets_decides_their_features(joined: JoinedImages, boxes: Path, tiny_clip: Any) -> None:
    wider = open_images(f"folder:{boxes / 'photos'} + coco_crops:{boxes}#boxes.json#margin=0.5")
    assert wider.keys == joined.keys
    assert wider.fingerprint() != joined.fingerprint()
    assert wider.subset([0, 1]).fingerprint() == joined.subset([0, 1]).fingerprint()
    cached = cached_features(tiny_clip, joined, 0, None, 0, boxes / "cache", workers=0)
    alone = cached_features(tiny_clip, joined.parts[1], 0, None, 0, boxes / "cache", workers=0)
    np.testing.assert_allclose(cached.features[2:], alone.features, atol=1e-3)
