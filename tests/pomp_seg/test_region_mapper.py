"""Examples of masked regions: a window shows some of the mask, photo and mask stay together."""

from __future__ import annotations

import copy
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("detectron2")

from detectron2.config import CfgNode

from pomp_seg.data.augmentation import centre_crop_or_pad, nearest_positions
from pomp_seg.data.loader import build_mapper, configured_sample
from pomp_seg.data.region_mapper import RegionMapper, build_region_mapper, draw_window, mask_box
from prompt_core.data.augment import crop_box
from prompt_core.errors import UserError

from ..support.label_examples import CLASSES, COLOURS, IGNORE, blocks, interior, seeded, write_record


@settings(max_examples=40, deadline=None)
@given(
    mask=arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.booleans()),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 2**31),
)
def test_windows_lie_inside_and_show_the_mask(mask: np.ndarray, size: tuple[int, int], seed: int) -> None:
    mask[seed % mask.shape[0], seed % mask.shape[1]] = True
    left, upper, width, height = draw_window(mask, size, random.Random(seed))
    assert 0 <= left <= left + width <= mask.shape[1]
    assert 0 <= upper <= upper + height <= mask.shape[0]
    window = mask[upper : upper + height, left : left + width]
    rows, columns = nearest_positions(height, size[0]), nearest_positions(width, size[1])
    assert window[rows[:, None], columns].any()


def test_a_mask_of_two_far_pixels_is_not_lost() -> None:
    mask = np.zeros((600, 500), bool)
    mask[0, 0] = mask[-1, -1] = True
    for seed in range(20):
        left, upper, width, height = draw_window(mask, (16, 16), random.Random(seed))
        rows, columns = nearest_positions(height, 16) + upper, nearest_positions(width, 16) + left
        assert mask[rows[:, None], columns].any()


def test_windows_are_those_of_prompt_learning_where_all_is_mask() -> None:
    wide = np.ones((40, 200), bool)
    for seed in range(30):
        left, upper, right, lower = crop_box(200, 40, (0.08, 1.0), random.Random(seed))
        assert draw_window(wide, (8, 8), random.Random(seed)) == (left, upper, right - left, lower - upper)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(2, 4), columns=st.integers(2, 4), seed=st.integers(0, 2**31))
def test_masks_follow_the_photo(rows: int, columns: int, seed: int) -> None:
    labels = blocks(rows, columns, 40, seed)
    labels[:40, :40] = category = seed % CLASSES
    mapper = RegionMapper(True, CLASSES, IGNORE, train_size=(50, 40), flip="horizontal")
    with tempfile.TemporaryDirectory() as folder:
        example = seeded(mapper, write_record(Path(folder), labels, category_id=category), seed)
    assert example["image"].shape == (3, 40, 50)
    assert example["sem_seg"].shape == (40, 50)
    assert example["sem_seg"].dtype == torch.bool
    assert example["instances"].gt_classes.tolist() == [category]
    assert torch.equal(example["instances"].gt_masks, example["sem_seg"][None])
    assert example["sem_seg"].any()
    assert example["category_id"] == category
    # The window has 10 pixels of the photo at least: they are magnified 5 times at most.
    pixels = example["image"].permute(1, 2, 0).numpy()
    of_class = (pixels == COLOURS[category]).all(axis=2)
    mask = example["sem_seg"].numpy()
    compared = interior(mask, 7, beyond="same")
    # A sliver of another class at the window's border is mixed into the photo's border, and no pixel of the mask: only
    # mixed colours are left out, and only there.
    border = np.ones_like(compared)
    border[2:-2, 2:-2] = False
    pure = (pixels[:, :, None] == COLOURS).all(axis=3).any(axis=2)
    compared &= pure | ~border
    assert compared.any()
    assert np.array_equal(of_class[compared], mask[compared])


def test_regions_are_the_seeds(tmp_path: Path) -> None:
    labels = blocks(4, 4, seed=2)
    category = int(labels[labels != IGNORE][0])
    record = write_record(
        tmp_path, labels, np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8), category_id=category
    )
    before = copy.deepcopy(record)
    mapper = RegionMapper(True, CLASSES, IGNORE, train_size=(20, 24))
    draws = [seeded(mapper, record, seed) for seed in range(6)]
    again = [seeded(mapper, record, seed) for seed in range(6)]
    assert all(torch.equal(first["image"], second["image"]) for first, second in zip(draws, again, strict=True))
    assert all(torch.equal(first["sem_seg"], second["sem_seg"]) for first, second in zip(draws, again, strict=True))
    assert len({first["image"].numpy().tobytes() for first in draws}) == 6
    assert record == before


def test_regions_of_evaluation_are_the_centre(tmp_path: Path) -> None:
    labels = np.zeros((60, 90), np.uint8)
    labels[20:40, 10:70] = 2  # 20 x 60
    record = write_record(tmp_path, labels, category_id=2)
    example = RegionMapper(False, CLASSES, test_size=20, resize_test=True)(record)
    assert example["image"].shape == (3, 20, 20)
    assert example["sem_seg"].all()
    assert (example["image"] == torch.as_tensor(COLOURS[2])[:, None, None]).all()
    # The longer side is the limit: 60 -> 30 pixels, 20 -> 10, which are padded to 20.
    example = RegionMapper(False, CLASSES, test_size=20, resize_test=True, test_longest=30)(record)
    assert example["sem_seg"].sum(dim=1).tolist() == [0] * 5 + [20] * 10 + [0] * 5
    assert (example["image"][:, ~example["sem_seg"]] == 128).all()
    assert (example["height"], example["width"]) == (60, 90)
    # As published the region keeps its size: 20 rows in the middle of 30, and 30 of its 60 columns.
    example = RegionMapper(False, CLASSES, test_size=30)(record)
    assert example["sem_seg"].sum(dim=1).tolist() == [0] * 5 + [30] * 20 + [0] * 5


def test_the_box_of_a_region_may_be_enlarged(tmp_path: Path, cfg: CfgNode) -> None:
    labels = np.zeros((60, 90), np.uint8)
    labels[20:40, 80:90] = 2  # at the right border
    record = write_record(tmp_path, labels, category_id=2)
    cfg.MODEL.CLIP_ADAPTER.MASK_EXPAND_RATIO, cfg.INPUT.MIN_SIZE_TEST = 2.0, 40
    example = build_region_mapper(cfg, False)(record)
    # 40 rows from 10 on, and of 20 columns from 75 on the 15 that the photo has.
    assert example["sem_seg"].sum(dim=1).tolist() == [0] * 10 + [10] * 20 + [0] * 10
    shown = (example["image"] == torch.as_tensor(COLOURS[0])[:, None, None]).all(dim=0) | example["sem_seg"]
    assert shown.sum(dim=1).tolist() == [15] * 40
    cfg.MODEL.CLIP_ADAPTER.MASK_EXPAND_RATIO = 0.0
    with pytest.raises(UserError, match=r"MASK_EXPAND_RATIO is 0.0; a positive number"):
        build_region_mapper(cfg, False)


def test_the_centre_is_cut_out_or_padded() -> None:
    array = np.arange(20).reshape(4, 5)
    assert centre_crop_or_pad(array, 3, -1).tolist() == [[1, 2, 3], [6, 7, 8], [11, 12, 13]]
    assert centre_crop_or_pad(array, 2, -1).tolist() == [[7, 8], [12, 13]]  # 3 columns too many: 2 before, 1 behind
    padded = centre_crop_or_pad(array, 7, -1)
    assert padded.shape == (7, 7)
    assert (padded == -1).sum() == 49 - 20
    assert np.array_equal(padded[2:6, 1:6], array) or np.array_equal(padded[1:5, 1:6], array)
    assert centre_crop_or_pad(np.zeros((2, 9, 3)), 4, 0).shape == (4, 4, 3)


def test_the_box_of_a_mask() -> None:
    mask = np.zeros((10, 20), bool)
    mask[3, 7] = mask[8, 5] = True
    assert mask_box(mask) == (5, 3, 3, 6)


def test_mistakes_of_regions(tmp_path: Path) -> None:
    record = write_record(tmp_path, np.zeros((4, 4), np.uint8))
    mapper = RegionMapper(True, CLASSES, IGNORE)
    with pytest.raises(UserError, match=r"has the class \(category_id\) None"):
        mapper(record)
    with pytest.raises(UserError, match=r"has the class \(category_id\) 255; expected 0\.\.5"):
        mapper({**record, "category_id": IGNORE})
    with pytest.raises(UserError, match="has no pixel of class 3"):
        mapper({**record, "category_id": 3})
    with pytest.raises(UserError, match=r"INPUT\.MIN_SIZE_TRAIN is \(320, 384, 448\)"):
        RegionMapper(True, CLASSES, train_size=(320, 384, 448))
    with pytest.raises(UserError, match=r"INPUT\.MIN_SIZE_TEST is 0"):
        RegionMapper(False, CLASSES, test_size=0)


@pytest.mark.parametrize("data", ["coco-stuff-164k-156", "voc-11k-15"])
def test_published_settings_of_prompt_tuning(cfg: CfgNode, shared: Path, tmp_path: Path, data: str) -> None:
    (path,) = (shared / "data/published_configs/zsseg" / data).glob("*learn_prompt_pomp*.yaml")
    published = yaml.safe_load(path.read_text())
    cfg.INPUT.merge_from_other_cfg(CfgNode(published["INPUT"]))
    cfg.DATASETS.SAMPLE_PER_CLASS = published["DATASETS"]["SAMPLE_PER_CLASS"]
    labels = np.zeros((50, 70), np.uint8)
    labels[10:30, 20:60] = 4
    record = write_record(tmp_path, labels, category_id=4)
    example = seeded(build_mapper(cfg), record, 0)
    assert example["image"].shape == (3, 244, 224)  # the published code takes (224, 244) as width and height
    assert build_mapper(cfg, is_train=False)(record)["image"].shape == (3, 224, 224)
    assert len(configured_sample(cfg, [record] * 300)) == {"coco-stuff-164k-156": 32, "voc-11k-15": 128}[data]
