"""Training and test examples with whole label maps: photo and labels stay together, and what is wrong is said."""

from __future__ import annotations

import copy
import random
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.transforms import RandomFlip

from pomp_engine.loader import SeededExamples
from pomp_seg.config import load_config
from pomp_seg.data.augmentation import ColorJitter, nearest_positions, pad_to_multiple
from pomp_seg.data.label_sets import read_label_set
from pomp_seg.data.loader import build_mapper
from pomp_seg.data.region_mapper import RegionMapper
from pomp_seg.data.registration import dataset_labels
from pomp_seg.data.semantic_mapper import (
    SemanticMapper,
    build_semantic_mapper,
    build_test_mapper,
    semantic_augmentations,
)
from prompt_core.data.images import UnreadableImage
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

from ..support.label_examples import (
    CLASSES,
    IGNORE,
    assert_aligned,
    assert_partition,
    blocks,
    photo_of,
    seeded,
    write_record,
)


def plain_mapper(**keys: Any) -> SemanticMapper:
    """A semantic mapper without augmentation."""
    return SemanticMapper([], CLASSES, IGNORE, **keys)


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
