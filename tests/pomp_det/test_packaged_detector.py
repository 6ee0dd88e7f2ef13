"""The embedded detector as it is installed: the file's size and precision, and what it says of a real photo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")
pytest.importorskip("supervision")

from safetensors import safe_open
from torchvision.ops import box_iou

from pomp_engine.checkpoint import packaged_file
from prompt_core import UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/mini/detector.yaml"
STREET = ROOT / "docs/images/street.jpg"


@pytest.fixture(scope="module")
def weights() -> Path:
    if not STREET.is_file():
        pytest.skip(f"{STREET} is not there")
    try:
        return packaged_file("package://pomp_det/assets/detector.safetensors")
    except UserError as error:
        pytest.skip(str(error))


def test_the_file(weights: Path) -> None:
    assert weights.stat().st_size <= 25_000_000
    with safe_open(weights, "pt") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        numbers = file.get_tensor("roi_heads.box_predictor.0.cls_score.seen_words")
        metadata = file.metadata()
    assert {kind for name, kind in types.items() if not name.endswith("seen_classes")} == {"F16"}
    torch.testing.assert_close(numbers.float().norm(dim=1), torch.ones(len(numbers)), atol=2e-3, rtol=0)
    assert "human-models" in json.dumps(metadata)


@pytest.fixture
def found(call_tool: Callable[..., Any], tmp_path: Path) -> Callable[..., list[list[dict[str, Any]]]]:
    """Detections in the photo, with their words, for each of some vocabularies; no weights are named."""

    def predict(*vocabularies: str) -> list[list[dict[str, Any]]]:
        words = [part for vocabulary in vocabularies for part in ("--vocabulary", vocabulary)]
        code, _, error = call_tool("predict", "--model", CONFIG, *words, "--output", tmp_path / "out", STREET)
        assert code == 0, error
        folders = [tmp_path / "out" / str(number + 1) for number in range(len(vocabularies))]
        documents = [
            json.loads((folder / "detections.json").read_text())
            for folder in (folders if len(vocabularies) > 1 else [tmp_path / "out"])
        ]
        for document in documents:
            names = {category["id"]: category["name"] for category in document["categories"]}
            for row in document["annotations"]:
                row["word"] = names[row["category_id"]]
        return [document["annotations"] for document in documents]

    return predict


def corners(row: dict[str, Any]) -> torch.Tensor:
    x, y, width, height = row["bbox"]
    return torch.tensor([[x, y, x + width, y + height]])


def test_things_are_found_by_their_words(weights: Path, found: Any) -> None:
    seen, synonyms = found("car,bus,elephant,pizza", "automobile,coach,elephant,pizza")
    assert {row["word"] for row in seen} == {"car", "bus"}
    # Another name of a class is answered by what is known of the class: the same boxes.
    for word, other in (("car", "automobile"), ("bus", "coach")):
        first, second = (
            max((row for row in rows if row["word"] == name), key=lambda row: row["score"])
            for rows, name in ((seen, word), (synonyms, other))
        )
        assert float(box_iou(corners(first), corners(second))) > 0.9
        _, _, width, height = first["bbox"]
        assert 0.4 < first["area"] / (width * height) <= 1


@pytest.mark.slow
def test_thousands_of_words(weights: Path, found: Any) -> None:
    for rows in found("lvis", "imagenet21k"):
        assert 0 < len(rows) <= 100
        assert any("bus" in row["word"] for row in rows)
