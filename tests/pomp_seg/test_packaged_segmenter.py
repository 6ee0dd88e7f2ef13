"""The embedded segmenter as it is installed: the file's size and precision, and what it says of a real photo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("detectron2")

from safetensors import safe_open

from pomp_engine.checkpoint import packaged_file

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = packaged_file("package://pomp_seg/assets/segmenter.safetensors")


def test_the_file() -> None:
    assert WEIGHTS.stat().st_size <= 25_000_000
    with safe_open(WEIGHTS, "pt") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert set(types.values()) == {"F16"}
    assert {name.partition(".")[0] for name in types} == {"backbone", "sem_seg_head"}


def test_pixels_are_named_by_words(call_tool: Callable[..., Any], tmp_path: Path) -> None:
    street = ROOT / "docs/images/street.jpg"
    words = ["bus", "tree", "road", "elephant", "bed"]
    code, _, error = call_tool(
        "predict", "--model", ROOT / "configs/mini/segmenter.yaml", "--vocabulary", ",".join(words),
        "--output", tmp_path / "out", street,
    )  # fmt: skip
    assert code == 0, error
    (row,) = json.loads((tmp_path / "out/segmentation.json").read_text())["images"]
    labels = np.asarray(Image.open(tmp_path / "out" / row["label_map"]))
    assert labels.shape == (row["height"], row["width"]) == (300, 400)
    shares = np.bincount(labels.ravel(), minlength=len(words))[: len(words)] / labels.size
    assert shares[3] + shares[4] < 0.1, dict(zip(words, shares, strict=True))
    assert words[int(labels[150, 200])] == "bus"
