"""The mapper that a configuration names, and records drawn for each class."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from detectron2.config import CfgNode

from pomp_seg.data.loader import build_mapper, configured_sample, sample_per_class
from pomp_seg.data.region_mapper import RegionMapper, build_region_mapper
from pomp_seg.data.semantic_mapper import (
    EvaluationMapper,
    SemanticMapper,
)
from prompt_core.errors import UserError

from ..support.label_examples import assert_partition, blocks, seeded, write_record


def test_the_configuration_decides(cfg: CfgNode, tmp_path: Path) -> None:
    record = write_record(tmp_path, blocks(8, 9))
    mapper = build_mapper(cfg)
    assert isinstance(mapper, SemanticMapper)
    for seed in range(5):
        example = seeded(mapper, record, seed)
        assert example["image"].shape == (3, 48, 48)
        assert_partition(example)
    cfg.INPUT.CROP.ENABLED = False
    cfg.INPUT.SIZE_DIVISIBILITY = -1
    assert seeded(build_mapper(cfg), record, 0)["image"].shape[1] in (40, 60, 90)
    assert isinstance(build_mapper(cfg, is_train=False), EvaluationMapper)
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_binary_semantic"
    cfg.INPUT.MIN_SIZE_TRAIN = (224, 244)
    train, test = build_mapper(cfg), build_mapper(cfg, is_train=False)
    assert isinstance(train, RegionMapper)
    assert isinstance(test, RegionMapper)
    assert train.is_train
    assert not test.is_train
    assert not test.resize_test
    cfg.INPUT.REGION_TEST_RESIZE = True
    assert build_region_mapper(cfg, is_train=False).resize_test


def class_records(*sizes: int) -> list[dict[str, Any]]:
    """``sizes[c]`` records of class c."""
    return [
        {"file_name": f"{category}_{index:04d}.jpg", "category_id": category}
        for category, size in enumerate(sizes)
        for index in range(size)
    ]


def test_a_class_gives_so_many_records_with_replacement_or_all() -> None:
    records = class_records(100, 5, 32, 31)
    sampled = sample_per_class(records, 32)
    by_class = [[r["file_name"] for r in sampled if r["category_id"] == category] for category in range(4)]
    assert [len(names) for names in by_class] == [32, 5, 32, 31]
    assert [len(set(names)) for names in by_class][1::2] == [5, 31]
    assert len(set(by_class[2])) < 32  # as many as asked for are drawn, and some come twice
    assert all(record in records for record in sampled)


def test_a_draw_is_a_function_of_the_seed_and_the_class() -> None:
    records = class_records(50, 60)
    sampled = sample_per_class(records, 8)
    assert sampled == sample_per_class(records, 8)
    assert sampled != sample_per_class(records, 8, seed=1)
    shuffled = list(records)
    random.Random(0).shuffle(shuffled)
    assert sampled == sample_per_class(shuffled, 8)
    assert sampled[8:] == sample_per_class([record for record in records if record["category_id"] == 1], 8)
    # Every record can be drawn, about equally often.
    drawn = [record["file_name"] for seed in range(300) for record in sample_per_class(class_records(10), 5, seed)]
    counts = [drawn.count(f"0_{index:04d}.jpg") for index in range(10)]
    assert min(counts) > 100
    assert max(counts) < 200


def test_mistakes_of_sampling(cfg: CfgNode) -> None:
    records = class_records(3)
    assert configured_sample(cfg, records) == records
    cfg.DATASETS.SAMPLE_PER_CLASS = 0
    with pytest.raises(UserError, match="SAMPLE_PER_CLASS is 0"):
        configured_sample(cfg, records)
    cfg.DATASETS.SAMPLE_PER_CLASS = 2
    with pytest.raises(UserError, match=r"x\.jpg has no class"):
        configured_sample(cfg, [{"file_name": "x.jpg"}])
