"""Shared by tests of the front: the embedded models, loaded once, and the command in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import pomp
from pomp.console import dispatch
from pomp.models.photo_classifier import PhotoClassifier
from pomp.models.photo_model import Model
from prompt_core.errors import run_command

STREET = Path(__file__).resolve().parents[2] / "docs/images/street.jpg"


@pytest.fixture(scope="session")
def mini_classifier() -> PhotoClassifier:
    """The embedded classifier; each test sets words."""
    model = pomp.load("mini", "classify")
    assert isinstance(model, PhotoClassifier)
    return model


@pytest.fixture(scope="session")
def mini_detector() -> Model:
    """The embedded detector; each test sets words."""
    pytest.importorskip("detectron2")
    return pomp.load("mini", "detect")


@pytest.fixture(scope="session")
def mini_segmenter() -> Model:
    """The embedded segmenter; each test sets words."""
    pytest.importorskip("detectron2")
    return pomp.load("mini", "segment")


@pytest.fixture
def street_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six small parts of a photo of a street, in ``photos`` below the current folder."""
    (tmp_path / "photos").mkdir()
    with Image.open(STREET) as street:
        for number in range(6):
            street.crop((40 * number, 30, 40 * number + 160, 150)).save(tmp_path / f"photos/{number}.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call_pomp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run ``pomp`` in this process with a model that is loaded: its exit code, output and errors."""

    def call(model: Model | None, *arguments: str | Path) -> tuple[int, str, str]:
        if model is not None:
            monkeypatch.setattr("pomp.models.load.load", lambda *given, **options: model)
        with pytest.raises(SystemExit) as stop:
            run_command(lambda: dispatch([*map(str, arguments)]))
        out, error = capsys.readouterr()
        return int(stop.value.code or 0), out, error

    return call
