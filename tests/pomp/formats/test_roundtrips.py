"""What is written in a format comes back the same, to the precision of the format."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomp.formats.formats import FORMATS, each, read_corrections, write_formats
from pomp.formats.labelled import LabelledObject, LabelledPhoto
from pomp.formats.mask_shapes import box_of_mask, mask_of_pixels, pixels_of_mask

# Words of any script, with what XML, YAML, CSV and paths take for signs of their own.
WORDS = ("dog", "Straßenbahn", "犬 と 猫", "كلب", "a<b&c>\"d'", "x,y: #z", "../up", "- no", "null", "0")
EXAMPLES = 3  # of each property; the shapes of masks have their own test
NAMES = ("a.jpg", "b/a.jpg", "b/a.png", "ключ 1.jpg", "../out.jpg", "/etc/x.jpg", "a b/c,d;e.jpg", 'q".jpg', "A.JPG")


@st.composite
def objects(draw: st.DrawFn, width: int, height: int, scored: bool, masked: bool) -> LabelledObject:
    word = draw(st.sampled_from(WORDS))
    score = draw(st.floats(0.01, 1)) if scored else None
    if masked and draw(st.booleans()):
        seed = draw(st.integers(0, 999))
        pixels = np.random.default_rng(seed).random((height, width)) < draw(st.sampled_from((0.1, 0.5, 0.9)))
        pixels[height // 2, width // 2] = True
        mask = mask_of_pixels(pixels)
        return LabelledObject(word, box_of_mask(mask), score, mask)
    x, y = draw(st.floats(0, width - 2)), draw(st.floats(0, height - 2))
    return LabelledObject(word, (x, y, draw(st.floats(1, width - x)), draw(st.floats(1, height - y))), score)


@st.composite
def photo_lists(draw: st.DrawFn, scored: bool, masked: bool) -> list[LabelledPhoto]:
    photos = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)):
        width, height = draw(st.integers(3, 40)), draw(st.integers(3, 40))
        things = draw(st.lists(objects(width, height, scored, masked), max_size=3))
        words = draw(st.none() | st.lists(st.sampled_from(WORDS), max_size=2, unique=True).map(tuple))
        scores = (0.5,) * len(words or ()) if scored else ()
        none = draw(st.none() | st.floats(0, 1)) if scored and words is not None else None
        photos.append(LabelledPhoto(name, width, height, tuple(things), words, scores, none_share=none))
    return photos


def written_and_read(kind: str, photos: list[LabelledPhoto]) -> tuple[LabelledPhoto, ...]:
    with tempfile.TemporaryDirectory() as folder:
        (place,) = write_formats([kind], each(photos), WORDS, Path(folder) / "out")
        assert {path.name for path in Path(folder).iterdir()} == {"out"}
        assert {path.name for path in (Path(folder) / "out").iterdir()} == {kind}
        found = read_corrections(place)
    assert found.words[: len(WORDS)] == WORDS or kind == "csv"
    return found.photos


@settings(max_examples=EXAMPLES, deadline=None)
@given(photo_lists(scored=True, masked=True))
def test_coco_gives_everything_back(photos: list[LabelledPhoto]) -> None:
    assert list(written_and_read("coco", photos)) == photos
    assert list(written_and_read("coco-polygons", photos)) == photos


@settings(max_examples=EXAMPLES, deadline=None)
@given(photo_lists(scored=False, masked=True))
def test_what_people_say_stays_what_people_say(photos: list[LabelledPhoto]) -> None:
    assert not any(photo.predicted for photo in written_and_read("labelstudio-masks", photos))
    for kind in ("labelstudio-masks", "coco", "cvat-masks", "fiftyone"):
        for photo, back in zip(photos, written_and_read(kind, photos), strict=True):
            assert_alike(photo, back, 1e-4)
            assert [item.mask for item in back.objects] == [item.mask for item in photo.objects]


@pytest.mark.parametrize(("kind", "pixels"), [("yolo", 1e-4), ("voc", 0.5), ("labelstudio", 1e-6), ("cvat", 1e-4)])
@settings(max_examples=EXAMPLES, deadline=None)
@given(photos=photo_lists(scored=False, masked=False))
def test_boxes_come_back(kind: str, pixels: float, photos: list[LabelledPhoto]) -> None:
    for photo, back in zip(photos, written_and_read(kind, photos), strict=True):
        assert_alike(photo, back, pixels + 1e-9)


@settings(max_examples=EXAMPLES, deadline=None)
@given(photo_lists(scored=False, masked=True))
def test_polygons_of_yolo_are_the_masks_to_a_pixel(photos: list[LabelledPhoto]) -> None:
    for photo, back in zip(photos, written_and_read("yolo-masks", photos), strict=True):
        assert_alike(photo, back, 1.5)
        for item, again in zip(photo.objects, back.objects, strict=True):
            if item.mask is not None and again.mask is not None:
                one, other = pixels_of_mask(item.mask), pixels_of_mask(again.mask)
                assert not (one & ~_grown(other)).any()


def _grown(pixels: np.ndarray) -> np.ndarray:
    padded = np.pad(pixels, 2)
    shifts = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    return np.any([np.roll(padded, shift, (0, 1)) for shift in shifts], axis=0)[2:-2, 2:-2]


def assert_alike(one: LabelledPhoto, other: LabelledPhoto, pixels: float) -> None:
    assert (other.name, other.width, other.height, other.words) == (one.name, one.width, one.height, one.words)
    assert [item.word for item in other.objects] == [item.word for item in one.objects]
    for item, again in zip(one.objects, other.objects, strict=True):
        x, y, width, height = item.box
        left, top, across, along = again.box
        corners = (left - x, top - y, left + across - x - width, top + along - y - height)
        assert max(map(abs, corners)) <= pixels


@settings(max_examples=EXAMPLES, deadline=None)
@given(photo_lists(scored=False, masked=False))
def test_words_of_photos_come_back_from_a_table(photos: list[LabelledPhoto]) -> None:
    said = {photo.name: photo.words for photo in photos if photo.words is not None}
    if said:
        assert {photo.name: photo.words for photo in written_and_read("csv", photos)} == said


@settings(max_examples=EXAMPLES, deadline=None)
@given(photo_lists(scored=False, masked=True))
def test_label_maps_name_the_pixels(photos: list[LabelledPhoto]) -> None:
    with_masks = [tuple(item for item in photo.objects if item.mask) for photo in photos]
    photos = [replace(photo, objects=things) for photo, things in zip(photos, with_masks, strict=True)]
    for photo, back in zip(photos, written_and_read("class-ids", photos), strict=True):
        named = np.zeros((photo.height, photo.width), dtype=bool)
        for item in photo.objects:
            named |= pixels_of_mask(item.mask or {})
        again = np.zeros_like(named)
        for item in back.objects:
            assert item.word in {thing.word for thing in photo.objects}
            again |= pixels_of_mask(item.mask or {})
        assert (again == named).all()


def test_every_format_is_written(tmp_path: Path) -> None:
    mask = mask_of_pixels(np.eye(10, dtype=bool))
    photo = LabelledPhoto("a.jpg", 10, 10, (LabelledObject("dog", (0, 0, 10, 10), mask=mask),), ("dog",))
    folders = write_formats(list(FORMATS), each([photo]), ["dog", "cat"], tmp_path)
    assert all(any(folder.iterdir()) for folder in folders)
