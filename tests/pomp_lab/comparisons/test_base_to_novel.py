"""The base-to-novel comparison: runs are done once, kept apart by their settings, and averaged over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pomp_lab.comparisons.base_to_novel import Experiment
from prompt_core import PromptedTextEncoder
from prompt_core.config import load_config
from prompt_core.data.sources import open_images
from prompt_core.evaluation.evaluate import TestSet
from prompt_core.vocabulary import Vocabulary

METHODS = {"POMP K=3": (3, "log10"), "full softmax": (0, None)}


@pytest.fixture
def open_tiny(
    tiny_clip: Any, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Experiment]:
    """An experiment on random pictures, three base classes and one novel one, negatives from nine names."""
    monkeypatch.setattr("pomp_lab.comparisons.base_to_novel.METHODS", METHODS)
    images = open_images(f"folder:{picture_folder}", "train")
    vocabulary = Vocabulary([*images.names, "cat", "dog", "toy car", "dining table", "hare"])
    random = np.random.default_rng(0)
    features = random.standard_normal((40, 24)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.repeat(np.arange(4), 10)
    columns = {
        "base / 9": TestSet(features[:30], labels[:30], vocabulary),
        "novel / 9": TestSet(features[30:], labels[30:], vocabulary),
    }

    def make(*overrides: Any) -> Experiment:
        cfg = load_config(None, ["DATA.CACHE", str(tmp_path / "cache"), "PROMPT.N_CTX", 2, *overrides])
        context = {"clip": tiny_clip.fingerprint, "half": "report"}
        encoder = PromptedTextEncoder(tiny_clip)
        rows = np.arange(4)
        return Experiment(cfg, encoder, images, vocabulary, rows, rows[:3], columns, 2, context, tmp_path / "out")

    return make


def run(experiment: Experiment) -> None:
    for seed in (0, 1):
        for method in METHODS:
            experiment.score_learned(method, 2, seed)


def test_rows_are_means_over_seeds_of_runs_with_the_same_settings(
    open_tiny: Callable[..., Experiment], tmp_path: Path
) -> None:
    plain, hard = open_tiny("OPTIM.LR", 0.01), open_tiny("OPTIM.LR", 5.0)
    plain.score_hand_prompts()
    run(plain)
    run(hard)
    found = [json.loads(path.read_text()) for path in (tmp_path / "out/runs").glob("*.json")]
    assert len(found) == 3 + 2 * 4
    for experiment, rate in ((plain, 0.01), (hard, 5.0)):
        headings, rows = experiment.table()
        assert [row[0] for row in rows][:2] == ['"{}"', '"a photo of a {}."']
        assert {(row[0], row[1]) for row in rows[3:]} == {(f"{method}, 2 shots", "2") for method in METHODS}
        for row in rows[3:]:
            of_row = [each for each in found if each["name"] == row[0] and each["settings"]["learning_rate"] == rate]
            assert sorted(each["seed"] for each in of_row) == [0, 1]
            for column in ("base / 9", "novel / 9"):
                one, other = (each["top1"][column] for each in of_row)
                expected = f"{(one + other) / 2:.1f} ± {abs(one - other) / 2:.1f}"
                assert row[headings.index(column)] == expected


def test_done_runs_are_not_done_again(open_tiny: Callable[..., Experiment], tmp_path: Path) -> None:
    experiment = open_tiny()
    experiment.score_learned("POMP K=3", 2, 0)
    (file,) = (tmp_path / "out/runs").glob("*.json")
    file.write_text(file.read_text().replace('"seed": 0', '"seed":  0'))
    before = file.read_text()
    experiment.score_learned("POMP K=3", 2, 0)
    assert file.read_text() == before
    experiment.score_learned("POMP K=3", 2, 1)
    assert len(list((tmp_path / "out/runs").glob("*.json"))) == 2
