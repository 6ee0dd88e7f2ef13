"""The comparison with a pipeline that pays for each word: what is called how often, and the ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pomp_lab.benchmarks.words_cost import MANY, PIPELINE, owl_vit_pipeline, ratios, words_costs

PHOTOS = [np.zeros((4, 6, 3), dtype=np.uint8), np.ones((4, 6, 3), dtype=np.uint8)]
WORDS = [f"word {number}" for number in range(100)]


def test_words_are_set_once_and_the_pipeline_is_given_them_for_each_photo() -> None:
    calls: list[tuple[str, Any]] = []

    def answer(photo: np.ndarray) -> None:
        calls.append(("answer", int(photo[0, 0, 0])))

    def pipeline(photo: np.ndarray, words: Sequence[str]) -> None:
        calls.append(("pipeline", len(words)))

    models = [("ours", lambda words: calls.append(("words", len(words))), answer)]
    rows = words_costs(PHOTOS, WORDS, (2, 80), pipeline, (2, MANY + 1), models, repeats=2)
    ours = [("answer", 0), ("answer", 0), ("answer", 1), ("answer", 1)]
    assert calls[:2] == [("words", 3), ("answer", 0)]
    assert calls[2:12] == [("words", 2), *ours, ("words", 80), *ours]
    assert calls[12:] == [("pipeline", 1), ("pipeline", 2), ("pipeline", 2), ("pipeline", MANY + 1)]
    assert [(row["system"], row["words"]) for row in rows] == [
        ("ours", 2),
        ("ours", 80),
        (PIPELINE, 2),
        (PIPELINE, MANY + 1),
    ]
    assert all(row["per_photo"]["wall_seconds"] >= 0 for row in rows)
    assert "setting_words" not in rows[-1]


def test_ratios_are_within_one_run() -> None:
    seconds = {("ours", 20): 0.5, ("ours", 300): 0.6, (PIPELINE, 20): 30.0, (PIPELINE, 300): 450.0}
    rows = [
        {"system": system, "words": words, "per_photo": {"cpu_seconds": value}}
        for (system, words), value in seconds.items()
    ]
    found = {(entry["system"], entry["words"]): entry for entry in ratios(rows)}
    assert found["ours", 300]["times_of_fewest_words"] == pytest.approx(1.2)
    assert found["ours", 300]["pipeline_takes_times"] == pytest.approx(750)
    assert found[PIPELINE, 300]["times_of_fewest_words"] == pytest.approx(15)
    assert "pipeline_takes_times" not in found[PIPELINE, 300]


def test_the_pipeline_answers_for_a_tiny_owl_vit() -> None:
    pytest.importorskip("transformers", reason="the package to compare with")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision, text = {**small, "image_size": 32, "patch_size": 16}, small
    run, sizes = owl_vit_pipeline(vision_config=vision, text_config=text, projection_dim=16)
    found = run(np.zeros((20, 30, 3), dtype=np.uint8), ["a cat", "remote control"])
    assert {detection["label"] for detection in found} <= {"a cat", "remote control"}
    assert (sizes["image_size"], sizes["patch_size"]) == (32, 16)
