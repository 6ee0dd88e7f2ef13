"""Training and test examples of the segmenter: photo and labels stay together, and what is wrong is said."""

from __future__ import annotations

import copy
import random
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.transforms import RandomFlip

from pomp_engine.loader import SeededExamples
from pomp_seg.config import add_segmenter_config, load_config
from pomp_seg.data.augmentation import ColorJitter, centre_crop_or_pad, nearest_positions, pad_to_multiple
from pomp_seg.data.label_sets import read_label_set
from pomp_seg.data.loader import build_mapper, configured_sample, sample_per_class
from pomp_seg.data.region_mapper import RegionMapper, build_region_mapper, draw_window, mask_box
from pomp_seg.data.registration import dataset_labels
from pomp_seg.data.semantic_mapper import (
    EvaluationMapper,
    SemanticMapper,
    build_semantic_mapper,
    build_test_mapper,
    semantic_augmentations,
)
from prompt_core.data.augment import crop_box
from prompt_core.data.images import UnreadableImage
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

CLASSES = 6
IGNORE = 255
# Colour of each class, of ignored pixels last: far apart, so that mixtures at edges are no other class's.
COLOURS = np.array([[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0], [0, 250, 250], [250, 250, 250]])


def photo_of(labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 whose colours tell the labels."""
    return COLOURS[np.where(labels == IGNORE, CLASSES, labels)].astype(np.uint8)


def write_record(folder: Path, labels: np.ndarray, photo: np.ndarray | None = None, **keys: Any) -> dict[str, Any]:
    """A photo and its label image on disk, as a Detectron2 record."""
    paths = folder / "photo.png", folder / "labels.png"
    Image.fromarray(photo_of(labels) if photo is None else photo).save(paths[0])
    Image.fromarray(labels).save(paths[1])
    return {"file_name": str(paths[0]), "sem_seg_file_name": str(paths[1]), **keys}


def blocks(rows: int, columns: int, size: int = 12, seed: int = 0) -> np.ndarray:
    """(rows * size, columns * size) uint8 labels in squares of one class; some are ignored."""
    drawn = np.random.default_rng(seed).integers(0, CLASSES + 1, (rows, columns))
    drawn[drawn == CLASSES] = IGNORE
    return np.kron(drawn, np.ones((size, size), np.int64)).astype(np.uint8)


def seeded(mapper: Any, record: dict[str, Any], seed: int) -> dict[str, Any]:
    """An example of a given draw, as a loader makes it."""
    np.random.seed(seed)  # noqa: NPY002
    example: dict[str, Any] = mapper(record)
    return example


def interior(labels: np.ndarray, radius: int, beyond: str = "other") -> np.ndarray:
    """(H, W) bool: pixels that have only their own class within ``radius``; ``beyond`` says what the border has."""
    inside = np.ones(labels.shape, bool)
    height, width = labels.shape
    labels = labels.astype(np.int64)
    padded = np.pad(labels, radius, mode="edge") if beyond == "same" else np.pad(labels, radius, constant_values=-1)
    for row in range(2 * radius + 1):
        for column in range(2 * radius + 1):
            inside &= padded[row : row + height, column : column + width] == labels
    return inside


def assert_aligned(image: torch.Tensor, labels: np.ndarray, radius: int) -> int:
    """Colours tell the labels away from edges; returns the number of pixels that were compared."""
    inside = interior(labels, radius)
    assert np.array_equal(image.permute(1, 2, 0).numpy()[inside], photo_of(labels)[inside])
    return int(inside.sum())


def assert_partition(example: dict[str, Any], ignore_label: int = IGNORE) -> None:
    """The masks share out the pixels that are not ignored, each to the class of its pixels."""
    labels, regions = example["sem_seg"], example["instances"]
    assert labels.dtype == torch.int64
    assert regions.gt_masks.dtype == torch.bool
    assert regions.gt_classes.dtype == torch.int64
    assert regions.image_size == tuple(labels.shape) == tuple(example["image"].shape[1:])
    assert regions.gt_masks.shape == (len(regions.gt_classes), *labels.shape)
    assert regions.gt_masks.flatten(1).any(dim=1).all()
    assert torch.equal(regions.gt_masks.sum(dim=0), (labels != ignore_label).long())
    assert regions.gt_classes.tolist() == sorted(set(labels.unique().tolist()) - {ignore_label})
    for category, mask in zip(regions.gt_classes, regions.gt_masks, strict=True):
        assert (labels[mask] == category).all()


def plain_mapper(**keys: Any) -> SemanticMapper:
    """A semantic mapper without augmentation."""
    return SemanticMapper([], CLASSES, IGNORE, **keys)


@pytest.fixture
def data_set() -> Iterator[str]:
    """The name of a registered data set with semantic labels."""
    name = "mappers_test_sem_seg"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(stuff_classes=[f"class {index}" for index in range(CLASSES)], ignore_label=IGNORE)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture
def cfg(data_set: str) -> CfgNode:
    """A configuration of small crops on that data set."""
    cfg = get_cfg()
    add_segmenter_config(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (data_set,)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (40, 60, 90), 200
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", (48, 48)
    cfg.INPUT.SIZE_DIVISIBILITY = 48
    return cfg


# Semantic examples


@settings(max_examples=40, deadline=None)
@given(
    labels=arrays(
        np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.sampled_from([0, 1, 2, 5, IGNORE])
    ),
    short=st.integers(4, 30),
    crop=st.integers(3, 30),
    share=st.sampled_from([1.0, 0.6]),
    divisibility=st.sampled_from([-1, 1, 7, 32]),
    flip=st.sampled_from(["horizontal", "vertical", "none"]),
    seed=st.integers(0, 2**31),
)
def test_masks_share_out_the_labelled_pixels(
    labels: np.ndarray, short: int, crop: int, share: float, divisibility: int, flip: str, seed: int
) -> None:
    steps = semantic_augmentations(
        [short, short + 5], 60, crop=("absolute", (crop, crop)), largest_share=share, color_jitter=True, flip=flip
    )
    with tempfile.TemporaryDirectory() as folder:
        record = write_record(Path(folder), labels)
        example = seeded(SemanticMapper(steps, CLASSES, IGNORE, divisibility), record, seed)
    assert_partition(example)
    height, width = example["sem_seg"].shape
    if divisibility > 0:
        assert height % divisibility == width % divisibility == 0
        assert max(height, width) < crop + divisibility
    else:
        assert max(height, width) <= crop
    assert set(example["sem_seg"].unique().tolist()) <= set(labels.ravel().tolist()) | {IGNORE}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(3, 6),
    columns=st.integers(3, 6),
    short=st.integers(30, 90),
    crop=st.integers(24, 60),
    flip=st.sampled_from(["horizontal", "vertical", "none"]),
    seed=st.integers(0, 2**31),
)
def test_labels_follow_the_photo(rows: int, columns: int, short: int, crop: int, flip: str, seed: int) -> None:
    labels = blocks(rows, columns, seed=seed)
    steps = semantic_augmentations([short], 200, crop=("absolute", (crop, crop)), flip=flip)
    with tempfile.TemporaryDirectory() as folder:
        example = seeded(SemanticMapper(steps, CLASSES, IGNORE), write_record(Path(folder), labels), seed)
    # One pixel of the photo, or of the result where that is the coarser one, is what a bilinear resize mixes.
    radius = int(np.ceil(max(1, short / min(labels.shape)))) + 1
    assert_aligned(example["image"], example["sem_seg"].numpy(), radius)


def test_alignment_is_really_compared(tmp_path: Path) -> None:
    labels = blocks(5, 5, seed=3)
    record = write_record(tmp_path, labels)
    steps = semantic_augmentations([70], 200, crop=("absolute", (50, 50)))
    example = seeded(SemanticMapper(steps, CLASSES, IGNORE), record, 5)
    assert assert_aligned(example["image"], example["sem_seg"].numpy(), 3) > 500
    with pytest.raises(AssertionError):
        assert_aligned(example["image"].flip(2), example["sem_seg"].numpy(), 3)


@settings(max_examples=60, deadline=None)
@given(old=st.integers(8, 90), new=st.integers(8, 90), data=st.data())
def test_an_edge_stays_where_the_photo_has_it(old: int, new: int, data: Any) -> None:
    edge = data.draw(st.integers(1, old - 1))
    labels = np.zeros((old, old), np.uint8)
    labels[:, edge:] = 1
    photo = np.repeat((labels * 255)[..., None], 3, axis=2)
    with tempfile.TemporaryDirectory() as folder:
        record = write_record(Path(folder), labels, photo)
        steps = semantic_augmentations([new], 200, flip="none")
        example = SemanticMapper(steps, CLASSES, IGNORE)(record)
    brightness = example["image"][0].float()
    decided = (brightness - 127.5).abs() > 40
    assert torch.equal(brightness[decided] > 127.5, example["sem_seg"][decided] == 1)


def test_label_positions_are_under_the_pixel_centres() -> None:
    assert nearest_positions(4, 2).tolist() == [1, 3]
    assert nearest_positions(2, 4).tolist() == [0, 0, 1, 1]
    assert nearest_positions(5, 3).tolist() == [0, 2, 4]
    for old in range(1, 30):
        for new in range(1, 30):
            # Pillow's, except where a centre lies on the border of two pixels: there its rounding decides.
            tied = (2 * np.arange(new) + 1) * old % (2 * new) == 0
            pixels = Image.fromarray(np.arange(old, dtype=np.uint8)[None])
            pillow = np.asarray(pixels.resize((new, 1), Image.Resampling.NEAREST))[0]
            assert np.array_equal(nearest_positions(old, new)[~tied], pillow[~tied])


def test_padding_is_grey_and_ignored(tmp_path: Path) -> None:
    labels = np.full((10, 20), 3, np.uint8)
    example = plain_mapper(size_divisibility=16)(write_record(tmp_path, labels))
    assert example["image"].shape == (3, 16, 32)
    padding = torch.ones(16, 32, dtype=torch.bool)
    padding[:10, :20] = False
    assert (example["image"][:, padding] == 128).all()
    assert (example["sem_seg"][padding] == IGNORE).all()
    assert torch.equal(example["image"][:, :10, :20], torch.as_tensor(photo_of(labels)).permute(2, 0, 1))
    assert torch.equal(example["instances"].gt_masks, ~padding[None])
    assert np.array_equal(pad_to_multiple(labels, -1, 0), labels)


def test_labels_without_any_class_give_no_mask(tmp_path: Path) -> None:
    example = plain_mapper()(write_record(tmp_path, np.full((5, 4), IGNORE, np.uint8)))
    assert len(example["instances"]) == 0
    assert example["instances"].gt_masks.shape == (0, 5, 4)


def test_keys_of_the_record_stay_and_the_record_is_not_changed(tmp_path: Path) -> None:
    record = write_record(tmp_path, blocks(2, 3), meta={"dataset_name": "some_set"})
    before = copy.deepcopy(record)
    example = plain_mapper()(record)
    assert record == before
    assert example["meta"] == {"dataset_name": "some_set"}
    assert (example["height"], example["width"]) == (24, 36)
    assert example["file_name"] == record["file_name"]


def test_labels_of_16_bits(tmp_path: Path) -> None:
    labels = np.array([[0, 846, 65535], [300, 300, 255]], np.uint16)
    record = write_record(tmp_path, labels, np.zeros((2, 3, 3), np.uint8))
    steps = semantic_augmentations([4], 10, crop=("absolute", (4, 6)), flip="none")
    example = SemanticMapper(steps, 847, 65535)(record)
    assert torch.equal(example["sem_seg"], torch.tensor(labels.repeat(2, 0).repeat(2, 1).astype(np.int64)))
    assert example["instances"].gt_classes.tolist() == [0, 255, 300, 846]
    assert_partition(example, 65535)


def test_labels_with_a_palette_are_their_indices(tmp_path: Path) -> None:
    labels = blocks(2, 2, 4, seed=1)
    record = write_record(tmp_path, labels)
    with_palette = Image.fromarray(labels, mode="L").convert("P")
    with_palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    with_palette.save(record["sem_seg_file_name"])
    assert np.array_equal(plain_mapper()(record)["sem_seg"].numpy(), labels)


def test_the_numpy_seed_alone_decides(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    record = write_record(tmp_path, blocks(5, 8, 12)[:, :80], photo)
    steps = semantic_augmentations([40, 60, 90], 200, crop=("absolute", (32, 32)), color_jitter=True)
    mapper = SemanticMapper(steps, CLASSES, IGNORE)
    images = []
    for seed in range(8):
        random.seed(1)
        first = seeded(mapper, record, seed)
        random.seed(2)
        state = random.getstate()
        second = seeded(mapper, record, seed)
        assert random.getstate() == state  # other users of Python's generator draw what they would have drawn
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["sem_seg"], second["sem_seg"])
        images.append(first["image"])
    assert len({image.numpy().tobytes() for image in images}) == len(images)


def test_draws_of_the_loader_come_out_the_same_in_any_order(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.INPUT.COLOR_AUG_SSD = True
    labels = blocks(6, 6)
    records = [write_record(tmp_path, labels, category_id=int(labels[0, 0]))] * 3
    regions = RegionMapper(True, CLASSES, IGNORE, train_size=(20, 24))
    for mapper in (build_mapper(cfg), regions):
        examples = SeededExamples(records, mapper, [0, 0, 0], 7)
        draws = [(0, 0), (1, 1), (2, 2), (0, 3)]
        first = {draw: examples[draw] for draw in draws}
        again = {draw: SeededExamples(records, mapper, [0, 0, 0], 7)[draw] for draw in reversed(draws)}
        assert all(torch.equal(first[draw]["image"], again[draw]["image"]) for draw in draws)
        assert all(torch.equal(first[draw]["sem_seg"], again[draw]["sem_seg"]) for draw in draws)
        assert not torch.equal(first[draws[0]]["image"], first[draws[1]]["image"])


def test_colour_jitter_changes_colours_only(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    record = write_record(tmp_path, blocks(1, 1), photo)
    mapper = SemanticMapper(semantic_augmentations([12], 20, color_jitter=True, flip="none"), CLASSES, IGNORE)
    examples = [seeded(mapper, record, seed) for seed in range(10)]
    original = torch.as_tensor(photo).permute(2, 0, 1)
    assert sum(not torch.equal(example["image"], original) for example in examples) >= 5
    assert all(torch.equal(example["sem_seg"], examples[0]["sem_seg"]) for example in examples)


def test_crops_with_too_much_of_one_class_are_drawn_again(tmp_path: Path) -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1

    def largest_shares(limit: float) -> list[float]:
        steps = semantic_augmentations(
            [40], 40, crop=("absolute", (20, 20)), largest_share=limit, flip="none", ignore_label=IGNORE
        )
        mapper = SemanticMapper(steps, CLASSES, IGNORE)
        drawn = [seeded(mapper, write_record(tmp_path, labels), seed)["sem_seg"] for seed in range(20)]
        return [max((crop == 0).float().mean().item(), (crop == 1).float().mean().item()) for crop in drawn]

    assert max(largest_shares(0.75)) < 0.75
    assert max(largest_shares(1.0)) > 0.9


# Mistakes


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    labels = blocks(2, 2)
    record = write_record(tmp_path, labels)
    mapper = plain_mapper()
    with pytest.raises(UnreadableImage, match=r"nowhere\.jpg"):
        mapper({**record, "file_name": str(tmp_path / "nowhere.jpg")})
    with pytest.raises(UserError, match=r"label file .*nowhere\.png does not exist; prepare"):
        mapper({**record, "sem_seg_file_name": str(tmp_path / "nowhere.png")})
    with pytest.raises(UserError, match="has no 'sem_seg_file_name'"):
        mapper({"file_name": record["file_name"]})
    with pytest.raises(UserError, match=r"labels\.png has the value 5; expected 0\.\.4, or 255"):
        SemanticMapper([], 5, IGNORE)(write_record(tmp_path, np.full((3, 3), 5, np.uint8)))
    with pytest.raises(UserError, match=r"labels\.png has the value 255; expected 0\.\.5, or 65535"):
        SemanticMapper([], CLASSES, 65535)(write_record(tmp_path, np.full((3, 3), 255, np.uint8)))
    with pytest.raises(UserError, match=r"labels\.png is 6 x 4 pixels .*photo\.png 5 x 4; both"):
        mapper(write_record(tmp_path, np.zeros((4, 6), np.uint8), np.zeros((4, 5, 3), np.uint8)))
    with pytest.raises(UserError, match=r"labels\.png has 3 channels of uint8"):
        mapper(write_record(tmp_path, np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)))
    record = write_record(tmp_path, labels)
    path = Path(record["sem_seg_file_name"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"cannot read label file .*labels\.png"):
        mapper(record)


def test_jpeg_photos_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    labels = np.full((16, 16), 1, np.uint8)
    record = write_record(tmp_path, labels)
    record["file_name"] = str(tmp_path / "photo.jpg")
    Image.fromarray(photo_of(labels)).save(record["file_name"], quality=95)
    red_first, red_last = plain_mapper()(record)["image"], plain_mapper(image_format="BGR")(record)["image"]
    assert red_first[0].float().mean() > 200 > red_first[2].float().mean()
    assert torch.equal(red_first.flip(0), red_last)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT.DATASET_MAPPER_NAME", "mask_former_semantics", "nearest: 'mask_former_semantic'"),
        ("INPUT.CROP.TYPE", "absolut", "nearest: 'absolute'"),
        ("INPUT.CROP.SIZE", (0, 48), "two positive numbers of pixels"),
        ("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.0, "expected a share"),
        ("INPUT.MIN_SIZE_TRAIN", (0,), "INPUT.MIN_SIZE_TRAIN"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "two of them"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "choise", "nearest: 'choice'"),
        ("INPUT.RANDOM_FLIP", "horizontall", "nearest: 'horizontal'"),
        ("INPUT.FORMAT", "L", "'RGB' or 'BGR'"),
        ("DATASETS.TRAIN", (), "set DATASETS.TRAIN"),
        ("DATASETS.TRAIN", ("mappers_test_sem_sek",), "not registered; nearest: 'mappers_test_sem_seg'"),
        ("DATASETS.TRAIN", ("coco_2017_train",), "not registered with semantic labels"),
    ],
)
def test_mistakes_in_a_configuration(cfg: CfgNode, key: str, value: Any, message: str) -> None:
    cfg.INPUT.COLOR_AUG_SSD = True
    build_mapper(cfg)
    node, name = cfg, key.split(".")
    for part in name[:-1]:
        node = node[part]
    node[name[-1]] = value
    with pytest.raises(UserError, match=message):
        build_mapper(cfg)


def test_data_sets_that_train_together_have_the_same_classes(cfg: CfgNode, data_set: str) -> None:
    other = "mappers_test_other"
    DatasetCatalog.register(other, list)
    try:
        MetadataCatalog.get(other).set(stuff_classes=["one"], ignore_label=IGNORE)
        cfg.DATASETS.TRAIN = (data_set, other)
        with pytest.raises(UserError, match="other classes"):
            build_semantic_mapper(cfg)
    finally:
        DatasetCatalog.remove(other)
        MetadataCatalog.remove(other)


def test_classes_that_are_listed_in_a_file_are_read(cfg: CfgNode) -> None:
    name = "mappers_test_listed"
    names = [f"class {index}" for index in range(300)]
    DatasetCatalog.register(name, list)
    # As registered before the file of the classes was prepared.
    MetadataCatalog.get(name).set(read_classes=lambda: read_label_set(Vocabulary(names)))
    try:
        assert dataset_labels([name]) == (300, 65535)
        cfg.DATASETS.TRAIN = (name,)
        mapper = build_semantic_mapper(cfg)
        assert (mapper.num_classes, mapper.ignore_label) == (300, 65535)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_an_ignored_value_is_no_class() -> None:
    with pytest.raises(UserError, match="255 is also one of 847 classes"):
        SemanticMapper([], 847, 255)
    with pytest.raises(UserError, match="0 classes"):
        RegionMapper(True, 0)


# Configurations


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


@pytest.mark.parametrize(
    ("file", "crop", "longest"),
    [
        ("coco-stuff-164k-156/zero_shot_maskformer_R101c_pomp_prompt_bs32_60k.yaml", 640, 2560),
        ("voc-11k-15/zero_shot_maskformer_R101c_pomp_prompt_bs16_20k.yaml", 512, 2048),
    ],
)
def test_published_settings_of_mask_proposals(
    data_set: str, published: Path, tmp_path: Path, file: str, crop: int, longest: int
) -> None:
    cfg = load_config(published / file, {"DATASETS.TRAIN": (data_set,), "DATASETS.TEST": (data_set,)})
    mapper = build_mapper(cfg)
    assert isinstance(mapper, SemanticMapper)
    resize, cut, jitter, flip = mapper.augmentations.augs
    assert list(resize.short_edge_length) == list(range(320, 961, 64))
    assert resize.max_size == longest
    assert tuple(cut.crop_aug.crop_size) == (crop, crop)
    assert isinstance(jitter, ColorJitter)
    assert isinstance(flip, RandomFlip)
    example = seeded(mapper, write_record(tmp_path, blocks(8, 9)), 0)
    assert example["image"].shape == (3, crop, crop)
    assert_partition(example)
    whole = build_mapper(cfg, is_train=False)(write_record(tmp_path, blocks(2, 4)))
    assert whole["image"].shape == (3, crop, 2 * crop)  # the short side of evaluation is that of the crops


def test_real_labels(shared: Path, tmp_path: Path) -> None:
    root = "voc_seg/VOC2012"
    with tarfile.open(shared / "data/voc_seg.tar") as archive:
        names = archive.getnames()
        stem = Path(next(name for name in names if name.startswith(f"{root}/SegmentationClass"))).parent
        label_name = next(name for name in names if name.startswith(f"{stem}/") and name.endswith(".png"))
        photo_name = f"{root}/JPEGImages/{Path(label_name).stem}.jpg"
        for name, target in ((photo_name, "photo.jpg"), (label_name, "labels.png")):
            member = archive.extractfile(name)
            assert member is not None
            (tmp_path / target).write_bytes(member.read())
    record = {"file_name": str(tmp_path / "photo.jpg"), "sem_seg_file_name": str(tmp_path / "labels.png")}
    steps = semantic_augmentations(
        [int(x * 0.1 * 640) for x in range(5, 16)], 2048, crop=("absolute", (512, 512)), color_jitter=True
    )
    example = seeded(SemanticMapper(steps, 21, IGNORE, 512), record, 0)
    assert example["image"].shape == (3, 512, 512)
    assert len(example["instances"]) >= 1
    assert_partition(example)


# Regions


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
    assert all(torch.equal(one["image"], two["image"]) for one, two in zip(draws, again, strict=True))
    assert all(torch.equal(one["sem_seg"], two["sem_seg"]) for one, two in zip(draws, again, strict=True))
    assert len({one["image"].numpy().tobytes() for one in draws}) == 6
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


def test_the_centre_is_cut_out_or_padded() -> None:
    array = np.arange(20).reshape(4, 5)
    assert centre_crop_or_pad(array, 3, -1).tolist() == [[1, 2, 3], [6, 7, 8], [11, 12, 13]]
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


# Sampling by class


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
    by_class = [[each["file_name"] for each in sampled if each["category_id"] == category] for category in range(4)]
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
    assert sampled[8:] == sample_per_class([each for each in records if each["category_id"] == 1], 8)
    # Every record can be drawn, about equally often.
    drawn = [each["file_name"] for seed in range(300) for each in sample_per_class(class_records(10), 5, seed)]
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


# Evaluation


@pytest.mark.parametrize(("width", "height"), [(100, 50), (50, 100), (64, 64)])
@pytest.mark.parametrize("short_side", [30, 200, 0])
def test_photos_of_evaluation_are_detectron2s(
    cfg: CfgNode, tmp_path: Path, width: int, height: int, short_side: int
) -> None:
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = short_side, 250
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    record = write_record(tmp_path, np.zeros((height, width), np.uint8), photo, meta={"dataset_name": "some_set"})
    before = copy.deepcopy(record)
    example = build_test_mapper(cfg)(record)
    assert record == before
    assert torch.equal(example.pop("image"), DatasetMapper(cfg, is_train=False)(record)["image"])
    assert example == {**before, "height": height, "width": width}


def test_mistakes_of_evaluation(cfg: CfgNode, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"nowhere\.jpg"):
        build_test_mapper(cfg)({"file_name": str(tmp_path / "nowhere.jpg")})
    cfg.INPUT.MAX_SIZE_TEST = 0
    with pytest.raises(UserError, match=r"INPUT\.MAX_SIZE_TEST 0"):
        build_test_mapper(cfg)
