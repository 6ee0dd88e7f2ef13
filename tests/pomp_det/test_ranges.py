"""A detector's settings have ranges."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("detectron2")

from pomp_det.config import load_config
from pomp_det.published_keys import UNBUILT
from pomp_det.ranges import DETECTOR_RANGES
from pomp_engine.config import flatten

from ..support.setting_ranges import accepted, assert_sound, keys_without_range, refuses


def test_every_number_has_a_range_or_is_refused_and_every_range_a_setting() -> None:
    cfg = load_config()
    assert keys_without_range(cfg, DETECTOR_RANGES, UNBUILT) == []
    assert sorted(DETECTOR_RANGES.keys() - dict(flatten(cfg)).keys()) == []


def test_hostile_numbers() -> None:
    taken = accepted(load_config(), DETECTOR_RANGES)
    assert_sound(taken)
    assert 0 not in taken["SOLVER.MAX_ITER"] + taken["SOLVER.IMS_PER_BATCH"] + taken["INPUT.TRAIN_SIZE"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("SOLVER.MAX_ITER", 0, "is 0; expected 1 or more"),
        ("SOLVER.IMS_PER_BATCH", 0, "expected 1 or more"),
        ("SOLVER.BASE_LR", "nan", "is not a number; expected 0 or more"),
        ("SOLVER.BASE_LR", -1, "expected 0 or more"),
        ("SOLVER.BETAS", (0.9, 1.0), "expected"),
        ("DATALOADER.NUM_WORKERS", -1, "expected 0 or more"),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.5, "expected 0 to 1"),
        ("INPUT.TRAIN_SIZE", 0, "expected 1 or more"),
        ("DATALOADER.DATASET_BS", [8, 0], "expected 1 or more"),
        ("SEED", 10**22, f"expected -1 to {2**32 - 1}"),
        ("OUTPUT_DIR", "", "expected a text that is not empty"),
    ],
)
def test_refused(key: str, value: Any, expected: str) -> None:
    refuses(load_config, key, value, expected)
