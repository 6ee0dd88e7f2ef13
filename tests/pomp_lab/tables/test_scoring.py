"""One method on one target: columns, empty cells with their reasons, namesakes, geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pomp_lab.tables.scored_sets import Question, Target
from pomp_lab.tables.scoring import score_target
from prompt_core.data.images import ImageSet
from prompt_core.methods.cocoop import CoCoOp
from prompt_core.methods.linear_probe import LinearProbe
from prompt_core.methods.templates import TemplateMethod
from prompt_core.metrics import alignment, uniformity
from prompt_core.vocabulary import Vocabulary


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """Four classes of three pictures among six names, of which the wide list calls one otherwise."""
    rng = np.random.default_rng(0)
    keys = [f"{label}_{index}.png" for label in range(4) for index in range(3)]
    for key in keys:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / key)
    images = ImageSet(
        ["cat", "dog", "oak tree", "cup"], ["a", "b", "c", "d"], np.repeat(np.arange(4), 3), keys, "pictures", tmp_path
    )
    names = Vocabulary(["cup", "oak", "hare", "dog", "cat", "pen"])
    rows = np.array([4, 3, 1, 0])
    base, novel = np.array([0, 1, 2]), np.array([3])
    questions = (
        Question("base_of_own", base, rows[base], {"candidate_names": "own classes"}, True),
        Question("base_of_all", base, np.arange(6), {"candidate_names": "all names"}),
        Question("novel_of_both", novel, rows, {"candidate_names": "base and novel"}),
    )
    return Target("pictures", "pictures", "val", images, names, rows, questions)


def test_each_column_has_its_images_and_candidates(tiny_clip: Any, target: Target, tmp_path: Path) -> None:
    method = TemplateMethod(tiny_clip)
    scores = score_target(method, target, True, tmp_path / "cache")
    counts = {key: (value["images"], value["candidates"]) for key, value in scores.protocol.items()}
    assert counts == {"base_of_own": (9, 3), "base_of_all": (9, 6), "novel_of_both": (3, 4)}
    with torch.no_grad():
        classes = method.class_features(["cat", "dog", "oak"])
        pictures = torch.stack([tiny_clip.preprocess(target.images.read(place)) for place in range(9)])
        images = tiny_clip.encode_image(pictures)
    labels = torch.arange(3).repeat_interleave(3)
    right = (images @ classes.T).argmax(dim=1) == labels
    assert scores.numbers["base_of_own/top1"] == pytest.approx(100 * float(right.float().mean()))
    # Features are kept in half precision.
    assert scores.numbers["base_of_own/alignment"] == pytest.approx(float(alignment(images, classes[labels])), abs=1e-2)
    assert scores.numbers["base_of_own/uniformity"] == pytest.approx(float(uniformity(classes)), abs=1e-5)
    assert "base_of_all/alignment" not in scores.numbers


def test_a_linear_probe_has_numbers_among_its_own_classes_alone(tiny_clip: Any, target: Target, tmp_path: Path) -> None:
    method = LinearProbe(tiny_clip, names=["dog", "cat", "oak tree"])
    scores = score_target(method, target, True, tmp_path / "cache")
    assert set(scores.protocol) == {"base_of_own"}
    assert "base_of_own/alignment" not in scores.numbers
    assert "it knows the 3 classes it learned, 3 of 6 are others" in scores.skipped["base_of_all"]
    assert "1 of 4 are others" in scores.skipped["novel_of_both"]
    with torch.no_grad():
        pictures = torch.stack([tiny_clip.preprocess(target.images.read(place)) for place in range(9)])
        features = tiny_clip.image_features(pictures, normalise=False)
        best = method.layer(features).argmax(dim=1)
    right = best == torch.tensor([1, 0, 2]).repeat_interleave(3)
    assert scores.numbers["base_of_own/top1"] == pytest.approx(100 * float(right.float().mean()))
    # One protocol with the others, although it calls a class otherwise.
    others = score_target(TemplateMethod(tiny_clip), target, True, tmp_path / "cache").protocol["base_of_own"]
    assert scores.protocol["base_of_own"] == others


def test_features_of_each_image_have_a_limit(tiny_clip: Any, target: Target, tmp_path: Path) -> None:
    method = CoCoOp(tiny_clip, n_ctx=2, init="")
    scores = score_target(method, target, True, tmp_path / "cache", most_texts=27)
    assert set(scores.protocol) == {"base_of_own", "novel_of_both"}
    assert scores.skipped == {"base_of_all": "class features of each image would be 54 texts"}
    assert "base_of_own/alignment" not in scores.numbers


def test_namesakes_are_reported_where_there_are_any(tiny_clip: Any, target: Target, tmp_path: Path) -> None:
    import dataclasses

    twice = dataclasses.replace(target, names=Vocabulary(["cup", "oak", "Cup", "dog", "cat", "pen"]))
    for merge, word in ((True, "merged"), (False, "separate")):
        protocol = score_target(TemplateMethod(tiny_clip), twice, merge, tmp_path / "cache").protocol
        assert protocol["base_of_all"]["namesakes"] == word
        assert protocol["base_of_own"]["namesakes"] == "none"


def test_other_images_or_names_are_another_target(target: Target) -> None:
    import dataclasses

    assert dataclasses.replace(target).identity == target.identity
    fewer = dataclasses.replace(target, images=target.images.subset(range(11)))
    renamed = dataclasses.replace(target, names=Vocabulary(["cup", "oak", "hare", "dog", "cat", "pencil"]))
    assert len({str(t.identity) for t in (target, fewer, renamed)}) == 3
