"""A segmenter's settings have ranges."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("detectron2")

from pomp_engine.config import flatten
from pomp_seg.config import UNBUILT, load_config
from pomp_seg.ranges import SEGMENTER_RANGES

from ..support.setting_ranges import accepted, assert_sound, keys_without_range, refuses

# Of Detectron2's heads of boxes, which a segmenter has none of, and of tests at several sizes (TEST.AUG.ENABLED).
UNREAD = ("MODEL.ROI_BOX_HEAD", "MODEL.ROI_KEYPOINT_HEAD", "MODEL.RETINANET", "MODEL.PANOPTIC_FPN", "TEST.AUG")


def test_every_number_has_a_range_or_is_refused_and_every_range_a_setting() -> None:
    cfg = load_config()
    assert keys_without_range(cfg, SEGMENTER_RANGES, {*UNBUILT, *UNREAD}) == []
    assert sorted(SEGMENTER_RANGES.keys() - dict(flatten(cfg)).keys()) == []


def test_hostile_numbers() -> None:
    taken = accepted(load_config(), SEGMENTER_RANGES)
    assert_sound(taken)
    assert 0 not in taken["SOLVER.MAX_ITER"] + taken["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("SOLVER.MAX_ITER", 0, "is 0; expected 1 or more"),
        ("SOLVER.WEIGHT_DECAY_EMBED", -0.1, "expected 0 or more"),
        ("MODEL.CLIP_ADAPTER.MASK_THR", 2, "expected 0 to 1"),
        ("MODEL.CLIP_ADAPTER.REGION_BATCH", -1, "expected 0 or more"),
        ("MODEL.MASK_FORMER.DROPOUT", "nan", "is not a number; expected 0 to 1"),
        ("DATASETS.SAMPLE_PER_CLASS", 0, "expected -1, or 1 or more"),
        ("INPUT.MIN_SIZE_TRAIN", (320, 0), "expected 1 or more"),
    ],
)
def test_refused(key: str, value: Any, expected: str) -> None:
    refuses(load_config, key, value, expected)
