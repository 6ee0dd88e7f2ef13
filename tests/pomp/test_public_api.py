"""The public names of the front, what importing it costs, and its five lines for tasks, photos and words."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pomp
from pomp.models.photo_classifier import PhotoClassifier
from pomp.models.photo_model import Model
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[2]
STREET = ROOT / "docs/images/street.jpg"
WORDS = ["bus", "person", "tiger"]
TASKS = ("mini_classifier", "mini_detector", "mini_segmenter")


@pytest.fixture(params=TASKS)
def model(request: pytest.FixtureRequest) -> Model:
    loaded: Model = request.getfixturevalue(request.param)
    return loaded.words(WORDS)


def test_public_names_and_signatures() -> None:
    assert pomp.__all__ == sorted(pomp.__all__) == ["Model", "load"]
    assert set(pomp.__all__) <= set(dir(pomp))
    for name in pomp.__all__:
        value = getattr(pomp, name)
        assert value.__module__.startswith("pomp.models.")
        assert inspect.getdoc(value)
    assert list(inspect.signature(pomp.load).parameters)[:2] == ["model", "task"]
    assert {"prompt", "weights", "threshold", "device"} <= set(inspect.signature(pomp.load).parameters)
    for method, parameters in {"words": ["words", "negatives"], "predict": ["photo"], "describe": ["photo"]}.items():
        assert list(inspect.signature(getattr(Model, method)).parameters) == ["self", *parameters]
        assert inspect.getdoc(getattr(Model, method))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pomp.nonsense  # noqa: B018


def test_every_package_is_typed() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for name in ("pomp", "prompt_core", "pomp_engine", "pomp_det", "pomp_seg", "pomp_lab"):
        package = importlib.import_module(name)
        assert package.__file__ is not None
        assert (Path(package.__file__).parent / "py.typed").is_file(), name
        (line,) = [line for line in setup.splitlines() if line.strip().startswith(f'"{name}": [')]
        assert '"py.typed"' in line, name


def test_importing_it_is_light_and_silent(tmp_path: Path) -> None:
    script = """
import logging, os, sys
before = os.environ.copy()
import pomp
dir(pomp)
heavy = {"torch", "torchvision", "open_clip", "timm", "numpy", "PIL", "detectron2", "supervision"} & set(sys.modules)
assert not heavy, heavy
assert pomp.__version__
assert os.environ.copy() == before and not logging.getLogger().handlers
pomp.load
assert not {"torch", "detectron2", "supervision"} & set(sys.modules), "the function loads nothing before it is called"
"""
    command = [sys.executable, "-W", "error::UserWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_opencv_is_only_loaded_where_it_is_needed() -> None:
    """An installed package has none: supervision no longer brings it, and these parts of Detectron2 import it."""
    heavy = ("cv2", "detectron2.projects.point_rend", "detectron2.utils.visualizer")
    found = []
    for package in ("pomp", "prompt_core", "pomp_engine", "pomp_det", "pomp_seg"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found += [f"{path}: {name}" for name in names if name.startswith(heavy)]
    assert found == []


def test_photos_are_paths_pictures_or_arrays(model: Model) -> None:
    with Image.open(STREET) as picture:
        picture.load()
    photos: list[Any] = [str(STREET), STREET, picture, np.asarray(picture.convert("RGB"))]
    first, *others = [model.predict(photo) for photo in photos]
    assert set(first.data["class_name"]) <= set(WORDS)
    for other in others:
        np.testing.assert_array_equal(other.xyxy, first.xyxy)
        np.testing.assert_array_equal(other.confidence, first.confidence)
        np.testing.assert_array_equal(other.data["class_name"], first.data["class_name"])


def test_supervisions_annotators_draw_what_is_found(model: Model) -> None:
    supervision = pytest.importorskip("supervision")
    pixels = np.asarray(Image.open(STREET).convert("RGB"))
    found = model.predict(pixels)
    annotators = [supervision.BoxAnnotator(), supervision.LabelAnnotator()]
    if found.mask is not None:
        annotators.append(supervision.MaskAnnotator())
    scene = pixels[:, :, ::-1].copy()
    for annotator in annotators:
        scene = annotator.annotate(scene, found)
    assert scene.shape == pixels.shape
    assert (scene != pixels[:, :, ::-1]).any() == bool(len(found))
    if model.task != "classify":
        assert "bus" in found.data["class_name"]


def test_words_are_lists_texts_files_or_published(mini_classifier: PhotoClassifier, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("bus\nperson\ntiger\n")
    for words in (WORDS, tuple(WORDS), "bus, person, tiger", tmp_path / "words.txt", Vocabulary(WORDS)):
        assert mini_classifier.words(words).names == WORDS
    assert len(mini_classifier.words("coco").names) == 80


def test_a_detectors_own_words_wait_until_they_are_wanted() -> None:
    pytest.importorskip("detectron2")
    from pomp_det import classifier

    calls = []
    real = classifier.set_classifier

    def counted(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pomp_det.predictor.set_classifier", counted)
        detector = pomp.load("mini")
        assert len(calls) == 0
        assert len(detector.names) == 80
        assert len(calls) == 1
        assert detector.words(WORDS).names == WORDS
        assert len(calls) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mini/detectr",), "neither a configuration.*nearest: 'mini/detector'.*pomp models"),
        (("ViT-B-61",), "nearest: 'ViT-B-16'"),
        (("mini", "find"), "task 'find' is not one of classify, detect, segment"),
        (("ViT-B-16", "detect"), "neither a configuration nor the folder of a run|neither a configuration"),
    ],
)
def test_an_unknown_model_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        pomp.load(*arguments)
    assert "\n" not in str(raised.value)


def test_photos_and_words_that_are_none_are_one_line(mini_classifier: PhotoClassifier, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    mini_classifier.words(WORDS)
    photos: list[Any] = [tmp_path / "broken.jpg", tmp_path / "absent.jpg", np.zeros((4, 4)), np.zeros((4, 4, 3))]
    for photo in photos:
        with pytest.raises(UserError) as raised:
            mini_classifier.predict(photo)
        assert "\n" not in str(raised.value)
    wrong: list[Any] = [[], ["bus", 7], ["bus", " "], ["bus", "bus"], tmp_path / "absent.txt"]
    for words in wrong:
        with pytest.raises(UserError) as raised:
            mini_classifier.words(words)
        assert "\n" not in str(raised.value)
    assert mini_classifier.names == WORDS
