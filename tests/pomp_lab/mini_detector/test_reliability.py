"""Which detections are right, and precision by score."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")

from pomp_lab.mini_detector.reliability import matched, reliability


def row(box: tuple[float, ...], score: float = 0.0, image: int = 1, category: int = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score, **more}


def test_each_box_is_found_once_and_crowds_count_neither_way() -> None:
    truth = [row((0, 0, 10, 10)), row((100, 0, 10, 10)), row((50, 50, 40, 40), iscrowd=1), row((0, 0, 10, 10), image=2)]
    found = [
        row((0, 0, 10, 10), 0.6),  # its box is taken by the better one
        row((1, 0, 10, 10), 0.9),
        row((104, 0, 10, 10), 0.8),  # IoU 0.43
        row((55, 55, 10, 10), 0.7),  # in the crowd
        row((0, 0, 10, 10), 0.5, category=2),  # nothing of this class
        row((0, 1, 10, 10), 0.4, image=2),
    ]
    scores, right, total = matched(found, truth)
    assert dict(zip(scores.tolist(), right.tolist(), strict=True)) == {
        0.9: True, 0.6: False, 0.8: False, 0.5: False, 0.4: True,
    }  # fmt: skip
    assert total == 3
    assert matched([], truth)[2] == 3


def test_precision_by_score() -> None:
    scores, right = np.array([0.1, 0.5, 0.55, 0.9, 1.0]), np.array([False, True, False, True, True])
    found = reliability(scores, right, 10, edges=(0.0, 0.5, 0.6, 1.0), above=(0.5, 2.0))
    assert [(entry["detections"], entry["precision"]) for entry in found["bins"]] == [(1, 0), (2, 0.5), (2, 1)]
    assert found["bins"][1]["score"] == pytest.approx(0.525)
    assert found["above"][0] == {"threshold": 0.5, "detections": 3, "precision": pytest.approx(2 / 3), "recall": 0.2}
    assert found["above"][1]["precision"] is None
    json.dumps(found)
