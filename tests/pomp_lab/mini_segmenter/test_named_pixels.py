"""Pixels counted with and without "none of these"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from pomp_lab.mini_segmenter import named_pixels as table
from pomp_seg.evaluation.metrics import confusion_matrix
from prompt_core.errors import UserError

from ...support.tools import call_tool

__all__ = ["call_tool"]


def test_numbers_of_pixels() -> None:
    """Two words and none of these (2); 255 is a border."""
    truth = np.array([[0, 0, 1, 1, 2, 2, 2, 255]], np.uint8)
    found = np.array([[0, 2, 1, 0, 2, 0, 2, 0]], np.uint8)
    numbers = table.numbers(confusion_matrix(found, truth, 3))
    assert numbers["named"] == pytest.approx(100 * 4 / 7)
    assert numbers["precision"] == pytest.approx(100 * 2 / 4)
    assert numbers["recall"] == pytest.approx(100 * 2 / 4)
    assert numbers["mIoU"] == pytest.approx(100 * (1 / 4 + 1 / 2 + 2 / 4) / 3)
    assert numbers["mIoU of words alone"] == pytest.approx(100 * (1 / 3 + 1 / 2) / 2)


def test_truth_is_of_what_is_asked_for() -> None:
    assert table.truth_of(np.array([0, 1, 2, 3, 20, 255]), [0, 2, 19]).tolist() == [3, 0, 3, 1, 2, 255]
    every, first, second = table.word_sets().values()
    assert sorted(first + second) == every == list(range(20))


def test_thresholds_take_words_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = torch.tensor([[0.9, 0.6, 0.4, 0.1]])

    class Segmenter:
        @staticmethod
        def load(cfg: Any) -> Segmenter:
            return Segmenter()

        def set_vocabulary(self, words: list[str]) -> None:
            self.words = words

        def best(self, pixels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(1, 4, dtype=torch.int32), shares

    monkeypatch.setattr(table, "OpenVocabularySegmenter", Segmenter)
    monkeypatch.setattr(table, "load_config", lambda file, settings: SimpleNamespace())
    for name, values in (("val2007", np.zeros((1, 4, 3))), ("SegmentationClass", np.array([[1, 0, 1, 255]]))):
        (tmp_path / name).mkdir()
        suffix = "jpg" if name == "val2007" else "png"
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / name / f"x.{suffix}")
    with pytest.raises(UserError, match=r"val\.txt does not exist"):
        table.none_of_these("x.yaml", {}, tmp_path)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("x\n")
    numbers = table.none_of_these("x.yaml", {}, tmp_path)
    precisions = [
        numbers[f"every second word/{row}/precision"]
        for row in ("each pixel a word", "own share > 0.5", "own share > 0.7")
    ]
    assert precisions == [pytest.approx(200 / 3), 50, 100]
    assert numbers["the other 10 words/each pixel a word/precision"] == 0
    assert numbers["_protocol"]["voc_2007_val"]["images"] == 1


def test_nothing_to_measure_is_one_line(call_tool: Callable[..., Any], tmp_path: Path) -> None:
    code, _, error = call_tool("benchmark_mini_segmenter", "--output", tmp_path / "x.json")
    assert (code, error.count("\n")) == (2, 1)
    code, _, error = call_tool(
        "benchmark_mini_segmenter", "--voc", tmp_path / "absent", "--output", tmp_path / "x.json"
    )
    assert code == 2
    assert "absent does not exist" in error
    assert not (tmp_path / "x.json").exists()
