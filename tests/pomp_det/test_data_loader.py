"""Records become examples of their data set's size and kind; loaders agree for any workers and when resumed."""

from __future__ import annotations

import itertools
import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T

from pomp_det.config import load_config
from pomp_det.data.loader import build_train_loader, index_sampler, training_records
from pomp_det.data.mapper import (
    MixedDatasetMapper,
    RandomCropToSize,
    augmentations_of_config,
    scale_jitter,
    shortest_edge,
)
from pomp_det.data.registration import register_dataset
from pomp_engine.data.tar_images import decode_image, image_size, index_tar, read_tar_bytes
from pomp_engine.loader import numpy_seed
from prompt_core.data.images import UnreadableImage
from prompt_core.errors import UserError

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "bird"}]


def gradient(width: int, height: int) -> np.ndarray:
    """(H, W, 3): red grows to the right, green downwards."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


def save_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def make_boxes(folder: Path, count: int = 10) -> Path:
    images, annotations = [], []
    for number in range(count):
        width, height = (60, 40) if number % 3 else (40, 60)
        Image.fromarray(gradient(width, height)).save(folder / f"{number}.png")
        images.append({"id": number, "width": width, "height": height, "file_name": f"{number}.png"})
        box = [5, 5, 20, 15]
        polygon = [5, 5, 25, 5, 25, 20, 5, 20]
        annotation = {"id": number, "image_id": number, "category_id": 1 + number % 3, "bbox": box, "area": 300}
        annotations.append({**annotation, "iscrowd": 0, "segmentation": [polygon]})
    return save_json(folder / "boxes.json", {"images": images, "annotations": annotations, "categories": CATEGORIES})


def make_labels(folder: Path, count: int = 20) -> Path:
    images = []
    with tarfile.open(folder / "n0.tar", "w") as archive:
        for number in range(count):
            path = folder / f"label{number}.png"
            Image.fromarray(gradient(50, 30 if number % 2 else 70)).save(path)
            archive.add(path, path.name)
            path.unlink()
    for number, (name, offset, size) in enumerate(index_tar(folder / "n0.tar")):
        width, height = image_size(read_tar_bytes(folder / "n0.tar", offset, size))
        where = {"tar": "n0.tar", "offset": offset, "size": size}
        images.append(
            {"id": number, "width": width, "height": height, "file_name": name, "pos_category_ids": [2], **where}
        )
    return save_json(folder / "labels.json", {"images": images, "annotations": [], "categories": CATEGORIES})


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    register_dataset("test_mix_boxes", make_boxes(tmp_path), tmp_path)
    register_dataset("test_mix_labels", make_labels(tmp_path), tmp_path, "image_labels")
    yield tmp_path
    for name in ("test_mix_boxes", "test_mix_labels"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def mixed_config(*overrides: Any) -> CfgNode:
    """The published image-label stage, smaller."""
    settings = [
        *("DATASETS.TRAIN", ("test_mix_boxes", "test_mix_labels")),
        *("DATALOADER.SAMPLER_TRAIN", "MultiDatasetSampler"),
        *("DATALOADER.DATASET_RATIO", [1, 4], "DATALOADER.USE_RFS", [True, False]),
        *("DATALOADER.USE_DIFF_BS_SIZE", True, "DATALOADER.DATASET_BS", [2, 5]),
        *("DATALOADER.DATASET_INPUT_SIZE", [64, 32], "DATALOADER.DATASET_INPUT_SCALE", [[0.5, 2.0], [0.5, 1.5]]),
        *("DATALOADER.MULTI_DATASET_GROUPING", True, "DATALOADER.DATASET_ANN", ["box", "image"]),
        *("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False, "DATALOADER.NUM_WORKERS", 0),
        *("INPUT.CUSTOM_AUG", "EfficientDetResizeCrop", "INPUT.FORMAT", "RGB", "WITH_IMAGE_LABELS", True),
        *("MODEL.MASK_ON", True, "SEED", 7),
    ]
    return load_config(None, [*settings, *overrides])


def take(cfg: CfgNode, count: int, start: int = 0) -> list[list[dict[str, Any]]]:
    return list(itertools.islice(build_train_loader(cfg, start), count))


def test_a_batch_is_of_one_data_set_with_its_size_and_kind(data: Path) -> None:
    batches = take(mixed_config(), 12)
    kinds = {batch[0]["ann_type"] for batch in batches}
    assert kinds == {"box", "image"}
    for batch in batches:
        assert len({example["ann_type"] for example in batch}) == 1
        assert len({example["width"] > example["height"] for example in batch}) == 1
        limit, count = (64, 2) if batch[0]["ann_type"] == "box" else (32, 5)
        assert len(batch) == count
        for example in batch:
            assert max(example["image"].shape[1:]) <= limit
            assert example["image"].dtype == torch.uint8
            assert example["instances"].image_size == tuple(example["image"].shape[1:])
            if example["ann_type"] == "box":
                assert example["pos_category_ids"] == []
                assert len(example["instances"].gt_masks) == len(example["instances"])
            else:
                assert example["pos_category_ids"] == [1]
                assert len(example["instances"]) == 0
                assert "tar" not in example


def same(first: list[list[dict[str, Any]]], second: list[list[dict[str, Any]]]) -> bool:
    if [len(batch) for batch in first] != [len(batch) for batch in second]:
        return False
    pairs = zip(itertools.chain(*first), itertools.chain(*second), strict=True)
    return all(a["file_name"] == b["file_name"] and torch.equal(a["image"], b["image"]) for a, b in pairs)


def test_a_resumed_loader_goes_on_with_the_same_batches_and_pixels(data: Path) -> None:
    cfg = mixed_config()
    whole = take(cfg, 10)
    assert same(take(cfg, 4, start=6), whole[6:])
    assert same(take(cfg, 10), whole)
    assert not same(take(mixed_config("SEED", 8), 10), whole)


def test_workers_do_not_change_the_examples(data: Path) -> None:
    cfg = mixed_config()
    assert same(take(mixed_config("DATALOADER.NUM_WORKERS", 2), 4), take(cfg, 4))


def test_a_resumed_run_without_a_seed_is_reported(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    take(mixed_config("SEED", -1), 1, start=3)
    assert "SEED is -1" in caplog.text


def test_an_unreadable_photo_is_replaced_and_named_once(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "4.png").write_bytes(b"no image")
    cfg = mixed_config("DATASETS.TRAIN", ("test_mix_boxes",), "DATALOADER.DATASET_RATIO", [1])
    with caplog.at_level(logging.WARNING):
        names = [example["file_name"] for batch in take(cfg, 40) for example in batch]
    assert str(data / "4.png") not in names
    assert caplog.text.count("4.png cannot be used") == 1
    for number in range(10):
        (data / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="photos in a row cannot be read"):
        take(cfg, 1)


def test_a_photo_of_another_size_than_its_record_is_unreadable(data: Path) -> None:
    cfg = mixed_config()
    record = training_records(cfg)[0][0]
    mapper = MixedDatasetMapper(cfg, True)
    with pytest.raises(UnreadableImage, match="Mismatched image shape"):
        mapper({**record, "width": record["width"] + 1})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["DATALOADER.DATASET_ANN", ["box", "boxes"]], "nearest: 'box'"),
        (["DATALOADER.DATASET_ANN", ["box"]], "DATASET_ANN has 1 values for 2 data sets"),
        (["DATALOADER.DATASET_ANN", ["image", "image"]], "'test_mix_boxes' has no image labels"),
        (["DATALOADER.DATASET_ANN", ["box", "box"]], "'test_mix_labels' has image labels"),
        (["DATALOADER.DATASET_INPUT_SIZE", [64]], "DATASET_INPUT_SIZE has 1 values for 2"),
        (["DATALOADER.DATASET_BS", [64]], "DATASET_BS has 1 values for 2"),
        (["DATALOADER.DATASET_RATIO", [64]], "DATASET_RATIO has 1 values for 2"),
        (["DATALOADER.SAMPLER_TRAIN", "MultiDataSampler"], "nearest: 'MultiDatasetSampler'"),
        (["DATALOADER.MULTI_DATASET_GROUPING", False], "cannot share a batch"),
        (["DATASETS.TRAIN", ("test_mix_boxes", "test_mix_label")], "nearest: 'test_mix_labels'"),
        (["INPUT.CUSTOM_AUG", "EfficientDetResize"], "nearest: 'EfficientDetResizeCrop'"),
        (
            ["DATALOADER.USE_DIFF_BS_SIZE", False, "SOLVER.IMS_PER_BATCH", 0],
            "SOLVER.IMS_PER_BATCH is 0; expected 1 or more",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named_before_training(data: Path, overrides: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_train_loader(mixed_config(*overrides))


def test_masks_and_mask_format_have_to_fit(data: Path, tmp_path: Path) -> None:
    document = json.loads((data / "boxes.json").read_text())
    for annotation in document["annotations"]:
        annotation["segmentation"] = {"size": [40, 60], "counts": [40 * 60]}
    for image in document["images"]:
        image |= {"width": 60, "height": 40}
    register_dataset("test_mix_boxes", save_json(data / "rle.json", document), tmp_path)
    cfg = mixed_config("DATASETS.TRAIN", ("test_mix_boxes",))
    with pytest.raises(UserError, match="set it to 'bitmask'"):
        training_records(cfg)
    for annotation in document["annotations"]:
        del annotation["segmentation"]
    register_dataset("test_mix_boxes", save_json(data / "none.json", document), tmp_path)
    with pytest.raises(UserError, match=r"MODEL.MASK_ON is True; set it to False"):
        training_records(cfg)
    assert training_records(mixed_config("DATASETS.TRAIN", ("test_mix_boxes",), "MODEL.MASK_ON", False))[1] == [10]


def test_image_labels_repeat_the_photos_of_rare_classes(data: Path) -> None:
    document = json.loads((data / "labels.json").read_text())
    for number, image in enumerate(document["images"]):
        image["pos_category_ids"] = [3] if number == 4 else [2, 3] if number == 7 else [2]
    register_dataset("test_mix_labels", save_json(data / "rare.json", document), data, "image_labels")
    cfg = mixed_config("DATALOADER.USE_RFS", [False, True], "DATALOADER.REPEAT_THRESHOLD", 0.4)
    records, sizes = training_records(cfg)
    drawn = np.fromiter(itertools.islice(index_sampler(cfg, records, sizes, 0), 60_000), int)
    share = np.bincount(drawn, minlength=30)[10:] / (drawn >= 10).sum()
    # Class 3 is in 2 of 20 photos, which come sqrt(0.4 / 0.1) times as often; class 2 is in more than 0.4 of them.
    np.testing.assert_allclose(share, np.where(np.isin(np.arange(20), (4, 7)), 2, 1) / 22, rtol=0.1)


def test_photos_without_classes_cannot_be_drawn_by_class(data: Path) -> None:
    cfg = mixed_config("DATALOADER.SAMPLER_TRAIN", "ClassAwareSampler")
    records, sizes = training_records(cfg)
    drawn = set(itertools.islice(index_sampler(cfg, records, sizes, 0), 2000))
    assert {index >= sizes[0] for index in drawn} == {False, True}
    captioned = [*records[: sizes[0]], *({**record, "pos_category_ids": []} for record in records[sizes[0] :])]
    with pytest.raises(UserError, match="would never draw a photo of 'test_mix_labels'"):
        index_sampler(cfg, captioned, sizes, 0)


def test_other_samplers_and_plain_batches(data: Path) -> None:
    settings = ["DATASETS.TRAIN", ("test_mix_boxes",), "DATALOADER.USE_DIFF_BS_SIZE", False, "SOLVER.IMS_PER_BATCH", 3]
    for name in ("TrainingSampler", "RepeatFactorTrainingSampler", "ClassAwareSampler"):
        cfg = mixed_config(*settings, "DATALOADER.SAMPLER_TRAIN", name, "WITH_IMAGE_LABELS", False)
        batches = take(cfg, 6)
        assert all(len(batch) == 3 for batch in batches)
        assert same(take(cfg, 2, start=4), batches[4:])


def test_scale_jitter_keeps_the_aspect_ratio_and_the_box_on_its_content() -> None:
    image = gradient(120, 80)
    box = np.array([[30.0, 20.0, 90.0, 60.0]])
    for seed in range(30):
        with numpy_seed([seed]):
            augmented = T.AugInput(image, boxes=box)
            transforms = T.AugmentationList(scale_jitter(64, (0.3, 2.0)))(augmented)
        height, width = augmented.image.shape[:2]
        assert max(height, width) <= 64
        polygon = np.array([[30.0, 20.0], [90.0, 20.0], [90.0, 60.0], [30.0, 60.0]])
        (moved,) = transforms.apply_polygons([polygon])
        np.testing.assert_allclose([*moved.min(0), *moved.max(0)], augmented.boxes[0], atol=1e-3)
        # Red is a ruler along x: where the box's edge is inside the crop, the pixel there shows where it came from.
        for edge, origin in ((augmented.boxes[0][0], 30), (augmented.boxes[0][2], 90)):
            if 2 < edge < width - 2:
                shown = augmented.image[height // 2, int(edge), 0] / 255 * 119
                assert min(abs(shown - origin), abs(shown - (120 - origin))) < 5


def test_the_crop_cuts_at_a_random_place_and_never_pads() -> None:
    offsets = set()
    for seed in range(20):
        with numpy_seed([seed]):
            crop = RandomCropToSize(16).get_transform(gradient(40, 10))
        assert crop.apply_image(gradient(40, 10)).shape == (10, 16, 3)
        offsets.add(int(crop.apply_coords(np.zeros((1, 2)))[0, 0]))
    assert len(offsets) > 5
    assert min(offsets) >= -24
    assert max(offsets) <= 0


def test_sizes_of_each_data_set_by_shortest_edge() -> None:
    settings = ["INPUT.CUSTOM_AUG", "ResizeShortestEdge", "INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"]
    sizes = ["DATALOADER.DATASET_MIN_SIZES", [[80, 80], [40, 40]], "DATALOADER.DATASET_MAX_SIZES", [133, 66]]
    cfg = mixed_config(*settings, *sizes)
    first, second = augmentations_of_config(cfg)
    assert T.AugmentationList(first)(T.AugInput(gradient(60, 60))).apply_image(gradient(60, 60)).shape == (80, 80, 3)
    assert T.AugmentationList(second)(T.AugInput(gradient(120, 60))).apply_image(gradient(120, 60)).shape == (33, 66, 3)
    assert len(shortest_edge((10, 20), 30)) == 2
    # As in Detic, they are those of USE_DIFF_BS_SIZE; without it all data sets have one size.
    one = mixed_config(*settings, *sizes, "DATALOADER.USE_DIFF_BS_SIZE", False, "INPUT.MIN_SIZE_TRAIN", (50, 50))
    for augmentations in augmentations_of_config(one):
        transforms = T.AugmentationList(augmentations)(T.AugInput(gradient(60, 60)))
        assert transforms.apply_image(gradient(60, 60)).shape == (50, 50, 3)


def test_photos_in_archives_are_the_photos(tmp_path: Path) -> None:
    turned = Image.fromarray(gradient(30, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    Image.fromarray(gradient(9, 5)).save(tmp_path / "plain.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("turned.jpg", "plain.png"):
            archive.add(tmp_path / name, f"deep/{name}")
    (plain, at, size), (name, offset, length) = index_tar(tmp_path / "a.tar")
    assert (plain, name) == ("deep/plain.png", "deep/turned.jpg")
    content = read_tar_bytes(tmp_path / "a.tar", at, size)
    assert np.array_equal(decode_image(content, "RGB"), gradient(9, 5))
    assert np.array_equal(decode_image(content, "BGR"), gradient(9, 5)[..., ::-1])
    sideways = read_tar_bytes(tmp_path / "a.tar", offset, length)
    assert image_size(sideways) == (20, 30) == decode_image(sideways, "RGB").shape[1::-1]
    (tmp_path / "cut.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:700])
    with pytest.raises(UserError, match=r"cut.tar"):
        index_tar(tmp_path / "cut.tar")


def test_published_files_build_their_augmentations(shared: Path) -> None:
    for path in sorted((shared / "data/published_configs/detic").glob("*.yaml")):
        cfg = load_config(path)
        assert len(augmentations_of_config(cfg)) == len(cfg.DATASETS.TRAIN)
