"""``pomp import``: corrections come back, and it says what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pomp.console import dispatch
from pomp.formats.formats import each, read_corrections, write_formats
from pomp.formats.imported import imported, unchanged
from pomp.formats.labelled import Corrections, LabelledObject, LabelledPhoto
from prompt_core.errors import UserError

DOG, CAT = LabelledObject("dog", (1, 1, 20, 20), 0.9), LabelledObject("cat", (5, 5, 9, 9), 0.4)
SEEN = [LabelledPhoto("a.jpg", 40, 30, (DOG, CAT)), LabelledPhoto("b.jpg", 40, 30, (CAT,), by_model=True)]


def by_a_person(photo: LabelledPhoto) -> LabelledPhoto:
    return replace(photo, objects=tuple(replace(item, score=None) for item in photo.objects))


def test_from_a_tool_to_a_file_of_corrections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos/a.jpg")
    moved = replace(CAT, box=(20, 20, 9, 9), score=None)
    corrected = [replace(by_a_person(SEEN[0]), objects=(replace(DOG, score=None), moved)), by_a_person(SEEN[1])]
    (model,) = write_formats(["coco"], each(SEEN), ["dog", "cat"], tmp_path / "model")
    (person,) = write_formats(["yolo"], each(corrected), ["dog", "cat"], tmp_path / "person")
    output = tmp_path / "corrected.json"
    options = ["--photos", str(tmp_path / "photos"), "--predictions", str(model), "--output", str(output)]
    assert dispatch(["import", str(person), *options]) == 0
    said = capsys.readouterr().out
    assert "yolo: 1 photos, 2 boxes (0 with masks), 0 named as a whole, 2 words" in said
    assert "1 photos left out whose file was not found:\n  b.jpg" in said
    assert "left as the model had them: 0 photos, 1 boxes" in said
    written = json.loads(output.read_text())
    assert not any("score" in row for row in written["annotations"])
    again = read_corrections(output, tmp_path / "photos")
    assert [item.word for item in again.photos[0].objects] == ["dog", "cat"]
    assert again.photos[0].path == tmp_path / "photos/a.jpg"


def test_what_a_model_said_is_no_correction(tmp_path: Path) -> None:
    for kind in ("coco", "labelstudio", "fiftyone"):
        nothing = LabelledPhoto("c.jpg", 40, 30, by_model=True)
        (place,) = write_formats([kind], each([*SEEN, nothing]), ["dog", "cat"], tmp_path / kind)
        with pytest.raises(UserError, match="nobody has corrected one of its 3 photos"):
            imported(read_corrections(place))
        accepted = imported(read_corrections(place), accept_predictions=True)
        assert [len(photo.objects) for photo in accepted.corrections.photos] == [2, 1, 0]
        assert not any(photo.predicted for photo in accepted.corrections.photos)


def test_that_there_is_nothing_is_a_correction(tmp_path: Path) -> None:
    for kind in ("coco", "labelstudio", "fiftyone", "yolo", "cvat"):
        (place,) = write_formats([kind], each([LabelledPhoto("c.jpg", 40, 30)]), ["dog"], tmp_path / kind)
        (photo,) = imported(read_corrections(place)).corrections.photos
        assert photo.objects == ()


def test_words_that_count() -> None:
    whole = LabelledPhoto("c.jpg", 40, 30, (), ("bird",))
    result = imported(Corrections("coco", (by_a_person(SEEN[0]), whole), ("dog", "cat", "bird")), ["cat"])
    assert result.corrections.words == ("cat",)
    assert [item.word for item in result.corrections.photos[0].objects] == ["cat"]
    assert result.corrections.photos[1].words == ()
    assert result.other_words == {"dog": 1, "bird": 1}


def test_unchanged_photos_are_found_by_the_end_of_their_name() -> None:
    person = [replace(by_a_person(photo), name=f"upload/{photo.name}") for photo in SEEN]
    assert unchanged(person, SEEN) == (2, 3)
    assert unchanged([replace(person[0], objects=person[0].objects[:1])], SEEN) == (0, 1)


def test_photos_that_are_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,word\nx/a.jpg,dog\n")
    with pytest.raises(UserError, match=r"none of its 1 photos was found, the first is x/a\.jpg; give their folder"):
        dispatch(["import", str(tmp_path / "a.csv"), "--output", str(tmp_path / "b.json")])
    assert not (tmp_path / "b.json").exists()
