"""Photos that users name: each once, named alike on every machine, whatever their files are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prompt_core.errors import UserError
from prompt_core.photos.photo_list import NamedPhoto, list_photos_to_predict


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "a.png",
        "photos/b.PNG",
        "photos/sub/c.jpg",
        "photos/notes.txt",
        "other/photos/b.PNG",
        "out/0001_a.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given: str | Path) -> list[str]:
    return [photo.name for photo in list_photos_to_predict(given, Path("out"))]


def test_names_are_as_given_and_without_the_machine(here: Path) -> None:
    assert names("a.png", "photos") == ["a.png", "photos/b.PNG", "photos/sub/c.jpg"]
    assert names(here / "a.png", here / "photos", "other/../a.png") == ["a.png", "photos/b.PNG", "photos/sub/c.jpg"]
    assert names("./photos/sub", f"{here}/other/../photos") == ["photos/sub/c.jpg", "photos/b.PNG"]


def test_photos_that_would_be_called_alike_have_their_whole_path(here: Path) -> None:
    found = names(here / "photos/b.PNG", here / "other/photos/b.PNG", "a.png")
    assert found == [f"{here}/photos/b.PNG"[1:], f"{here}/other/photos/b.PNG"[1:], "a.png"]


def test_a_photo_counts_once_and_numbers_follow_the_list(here: Path) -> None:
    photos = list_photos_to_predict(["photos/sub/c.jpg", "photos", "a.png", "./a.png", here / "a.png"], Path("out"))
    assert [(photo.number, photo.name) for photo in photos] == [
        (1, "photos/sub/c.jpg"),
        (2, "photos/b.PNG"),
        (3, "a.png"),
    ]


def test_patterns(here: Path) -> None:
    assert names("photos/*") == ["photos/b.PNG"]
    assert names("**/*.jpg") == ["photos/sub/c.jpg"]
    (here / "x[1].png").touch()
    (here / "x1.png").touch()
    assert names("x[1].png") == ["x[1].png"]
    with pytest.raises(UserError, match=r"no photo matches none/\*\.jpg"):
        names("none/*.jpg")


def test_pictures_of_an_earlier_run_are_no_photos(here: Path) -> None:
    assert "out/0001_a.png" not in names(".", "*/*.png")
    assert names("out/0001_a.png") == ["out/0001_a.png"]
    with pytest.raises(UserError, match="no photo is left"):
        names("out")


def test_names_of_files_are_shown_and_not_obeyed(here: Path) -> None:
    strange = Path("new\nline\x1b[31m\u202e.png"), Path(os.fsdecode(b"caf\xe9.png")), Path("é" * 120 + ".png")
    for path in strange:
        path.touch()
    photos = list_photos_to_predict(strange, Path("out"))
    assert [photo.picture for photo in photos] == ["0001_new_line_[31m_.png", "0002_caf_.png", f"0003_{'é' * 60}.png"]
    assert photos[0].name == str(strange[0])
    assert photos[1].name == "caf\\xe9.png"
    assert NamedPhoto(12345, Path("photos/a b.v2.png"), "").picture == "12345_a b.v2.png"
