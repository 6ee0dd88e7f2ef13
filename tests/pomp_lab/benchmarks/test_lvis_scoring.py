"""The scoring benchmark compares like with like on synthetic files, and reports where numbers differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")

from pomp_det.evaluation.backends import score
from pomp_det.evaluation.metrics import detection_metrics
from pomp_det.evaluation.protocol import Protocol
from pomp_lab.benchmarks import harness
from pomp_lab.benchmarks import lvis_scoring as scoring_benchmark
from pomp_lab.benchmarks.synthetic_lvis import synthetic_annotations, synthetic_detections
from prompt_core.errors import UserError

Call = Callable[..., tuple[int, str, str]]
SMALL = ["--images", "15", "--classes", "24", "--detections", "40"]


@pytest.fixture
def scorers(in_this_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both scorers, here instead of in fresh processes."""
    pytest.importorskip("hotcoco")
    pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # undone after the test


def median(spread: dict[str, Any]) -> float:
    return float(np.median(spread["all"]))


def test_scoring_benchmark(call_tool: Call, tmp_path: Path) -> None:
    pytest.importorskip("hotcoco")
    pytest.importorskip("lvis")
    had_alias = hasattr(np, "float")
    output = tmp_path / "scoring.json"
    code, out, error = call_tool("benchmark_scoring", *SMALL, "--output", output)
    assert code == 0, error
    assert hasattr(np, "float") == had_alias  # lvis-api's shim stays in its own process
    report = json.loads(output.read_text())
    assert report["set_up"]["versions"]["hotcoco"] != "absent"
    result = report["tasks"]["bbox"]
    assert (result["images"], result["classes"], result["detections"]) == (15, 24, 15 * 40)
    fast, reference = result["hotcoco"], result["lvis-api"]
    assert len(fast["numbers"]) == 13
    assert 0.05 < fast["numbers"]["AP"] < 0.9
    assert fast["numbers"] == pytest.approx(reference["numbers"], abs=1e-9)
    assert result["agree"]
    assert result["ratio"] == pytest.approx(median(reference["seconds"]) / median(fast["seconds"]))
    assert result["evaluate_ratio"] == pytest.approx(median(reference["evaluate"]) / median(fast["evaluate"]))
    for side in (fast, reference):
        assert side["seconds"]["median"] == pytest.approx(side["load"]["median"] + side["evaluate"]["median"])
        assert side["processor_seconds"]["median"] > 0
    (target,) = report["targets"]
    assert (target["measured"], target["wanted"]) == (result["ratio"], "at least 10")
    assert target["met"] == (result["ratio"] >= 10)
    assert "bbox: all 13 numbers agree to 1e-9" in out


@pytest.mark.usefixtures("scorers")
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_the_numbers_are_those_of_our_scoring(tmp_path: Path, task: str) -> None:
    result = scoring_benchmark.compare_scorers(15, 24, 40, task, seed=3, repeats=2)
    assert len(result["hotcoco"]["seconds"]["all"]) == len(result["lvis-api"]["seconds"]["all"]) == 2
    assert result["agree"]
    document = synthetic_annotations(15, 24, seed=3)
    annotations, results = tmp_path / "annotations.json", tmp_path / "results.json"
    annotations.write_text(json.dumps(document))
    results.write_text(json.dumps(list(synthetic_detections(document, 40, task == "segm", seed=3))))
    precision = score(annotations, results, task, Protocol("synthetic", "lvis"), "hotcoco")
    letters = {
        letter: [row for row, category in enumerate(document["categories"]) if category["frequency"] == letter]
        for letter in "rcf"
    }
    for name, value in detection_metrics(precision, letters).items():
        assert 100 * result["hotcoco"]["numbers"][name] == pytest.approx(value, abs=1e-7), name


def test_numbers_that_differ_are_reported(call_tool: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(measure: Any, side: str, *files: str) -> dict[str, Any]:
        numbers = {"AP": 0.5 if side == "hotcoco" else 0.5 + 3e-9, "APr": None}
        return {"seconds": 1.0, "load": 0.5, "evaluate": 0.5, "processor_seconds": 1.0, "numbers": numbers}

    monkeypatch.setattr(harness, "in_fresh_process", measured)
    code, out, _ = call_tool("benchmark_scoring", *SMALL, "--output", tmp_path / "scoring.json")
    assert code == 1
    assert "THE NUMBERS DIFFER" in out
    document = json.loads((tmp_path / "scoring.json").read_text())
    assert not document["tasks"]["bbox"]["agree"]
    assert document["tasks"]["bbox"]["largest_difference"] == pytest.approx(3e-9, rel=1e-3)
    assert not document["targets"][0]["met"]  # one second is not ten times as fast as one second


def test_difference_of_numbers() -> None:
    difference = scoring_benchmark.largest_difference
    assert difference({"AP": 0.5, "APr": None}, {"AP": 0.25, "APr": None}) == 0.25
    assert difference({"AP": None}, {"AP": 0.5}) == difference({"AP": 0.5}, {"AR": 0.5}) == float("inf")


def test_synthetic_annotations_are_federated_with_a_long_tail() -> None:
    document = synthetic_annotations(60, 100, seed=1)
    assert document == synthetic_annotations(60, 100, seed=1)
    assert document != synthetic_annotations(60, 100, seed=2)
    assert {category["frequency"] for category in document["categories"]} == set("rcf")
    present: dict[int, set[int]] = {image["id"]: set() for image in document["images"]}
    count = np.zeros(101, dtype=int)
    for annotation in document["annotations"]:
        present[annotation["image_id"]].add(annotation["category_id"])
        count[annotation["category_id"]] += 1
        x, y, w, h = annotation["bbox"]
        assert 0 <= x <= x + w <= 640.01
        assert 0 <= y <= y + h <= 480.01
        corners = np.array(annotation["segmentation"][0]).reshape(-1, 2)
        shifted = np.roll(corners, -1, axis=0)
        area = abs((corners[:, 0] * shifted[:, 1] - corners[:, 1] * shifted[:, 0]).sum()) / 2
        assert area == pytest.approx(annotation["area"], rel=0.02)
    for image in document["images"]:
        assert not present[image["id"]] & set(image["neg_category_ids"])
        assert set(image["not_exhaustive_category_ids"]) <= present[image["id"]]
    assert any(image["not_exhaustive_category_ids"] for image in document["images"])
    assert count[1:11].sum() > 2 * count[60:].sum() > 0
    areas = np.array([annotation["area"] for annotation in document["annotations"]])
    assert min((areas < 32**2).mean(), ((areas > 32**2) & (areas < 96**2)).mean(), (areas > 96**2).mean()) > 0.1


@pytest.mark.parametrize("detections", [3, 50])
def test_synthetic_detections_have_ties_hits_and_false_alarms(detections: int) -> None:
    document = synthetic_annotations(40, 30, seed=1)
    rows = list(synthetic_detections(document, detections, seed=1))
    assert rows == list(synthetic_detections(document, detections, seed=1))
    assert len(rows) == 40 * detections
    assert {row["image_id"] for row in rows} == set(range(1, 41))
    scores = [row["score"] for row in rows]
    assert all(0 <= value <= 1 for value in scores)
    assert len(set(scores)) < len(scores)
    corners = np.array([row["bbox"] for row in rows])
    assert (corners[:, :2] >= 0).all()
    assert (corners[:, 2:] >= 0.99).all()
    assert ((corners[:, :2] + corners[:, 2:]) <= [640.02, 480.02]).all()
    known = {
        image["id"]: {*image["neg_category_ids"]}
        | {annotation["category_id"] for annotation in document["annotations"] if annotation["image_id"] == image["id"]}
        for image in document["images"]
    }
    outside = [row["category_id"] not in known[row["image_id"]] for row in rows]
    assert any(outside) == (detections == 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "boxes"], "task 'boxes' is unknown"),
        (["--classes", "11"], "11 classes are too few"),
        (["--images", "0"], "1 or more"),
        (["--seed", "-1"], "--seed: a whole number"),
        (["--backend", "x"], "--backend"),
    ],
)
def test_bad_input(call_tool: Call, tmp_path: Path, arguments: list[str], message: str) -> None:
    output = tmp_path / "scoring.json"
    code, _, error = call_tool("benchmark_scoring", *SMALL, "--output", output, *arguments)
    assert code == 2
    assert message in error
    assert not output.exists()


def test_a_scorer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float", float, raising=False)
    monkeypatch.setitem(sys.modules, "lvis", None)
    with pytest.raises(UserError, match="lvis is not installed; run: pip install lvis"):
        scoring_benchmark.score_once("lvis-api", "annotations.json", "results.json", "bbox")
