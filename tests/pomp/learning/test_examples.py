"""Which images corrected photos give, and with which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pomp.formats.labelled import LabelledObject, LabelledPhoto
from pomp.learning.examples import examples_of, photos_of
from prompt_core import UserError, Vocabulary


def photo(folder: Path, name: str, *objects: LabelledObject, words: tuple[str, ...] | None = None) -> LabelledPhoto:
    path = folder / name
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[10:30, 20:50] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return LabelledPhoto(name, 60, 40, objects, words, path=path)


def thing(word: str, *box: float, score: float | None = None) -> LabelledObject:
    return LabelledObject(word, (box[0], box[1], box[2], box[3]), score)


def test_boxes_are_crops_of_their_photos(tmp_path: Path) -> None:
    corrected = [
        photo(
            tmp_path,
            "a/1.png",
            thing("Mug", 20, 10, 30, 20),
            thing("mug", 20, 10, 30, 20),
            thing("bolt", 0, 0, 4, 40),
            thing("bolt", 0, 0, 40, 40, score=0.9),
        ),
        photo(tmp_path, "2.png", thing("bolt", 0, 0, 10, 10)),
        photo(tmp_path, "3.png", words=()),
    ]
    examples = examples_of(corrected, tmp_path)
    assert examples.task == "detect"
    assert examples.words.names == ["bolt", "Mug"]
    assert examples.images.labels.tolist() == [1, 0]
    assert examples.right.tolist() == [[False, True], [True, False]]
    assert examples.photo.tolist() == [0, 1]
    assert examples.photos == 2
    assert examples.nothing.keys == ["3.png"]
    assert photos_of(examples.images).keys == ["a/1.png", "2.png"]
    assert examples.left_out == {"the same box again": 1, "smaller than 8 pixels": 1, "a model's own, with a score": 1}
    crop = np.asarray(examples.images.read(0))
    assert crop.shape == (24, 36, 3)  # a tenth more on each side
    assert (crop[2:-2, 3:-3] == 255).all()


def test_whole_photos_may_have_several_words(tmp_path: Path) -> None:
    corrected = [
        photo(tmp_path, "1.png", words=("dog", "cat")),
        photo(tmp_path, "2.png", words=("bird",)),
        photo(tmp_path, "3.png"),
        photo(tmp_path, "4.png", words=()),
    ]
    examples = examples_of(corrected, tmp_path)
    assert examples.task == "classify"
    assert examples.words.names == ["bird", "cat", "dog"]
    assert examples.images.labels.tolist() == [2, 0]
    assert examples.right.tolist() == [[False, True, True], [True, False, False]]
    asked = examples_of(corrected, tmp_path, words=Vocabulary(["Cat", "horse"]))
    assert asked.images.keys == ["1.png"]
    assert asked.right.tolist() == [[True, False]]
    assert asked.left_out == {"of other words": 1}


def test_what_holds_no_example_is_refused(tmp_path: Path) -> None:
    boxed = photo(tmp_path, "1.png", thing("mug", 0, 0, 20, 20))
    with pytest.raises(UserError, match="hold no photos with words of their own; --task detect takes boxes"):
        examples_of([boxed], tmp_path, "classify")
    with pytest.raises(UserError, match=r"none of the 1 corrected words, such as 'mug'.*nearest: 'mug'"):
        examples_of([boxed], tmp_path, words=Vocabulary(["mugs"]))
    with pytest.raises(UserError, match=r"1 of 1 corrected photos were not found, the first is 9\.png; give"):
        examples_of([LabelledPhoto("9.png", 9, 9, words=("mug",))], tmp_path)
