"""Photos come to an evaluation as Detectron2 brings them, and their ground truth follows."""

from __future__ import annotations

import copy
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.data import DatasetMapper
from detectron2.structures import BoxMode

from pomp_det.config import load_config
from pomp_det.data.evaluation_mapper import build_test_mapper
from pomp_engine.data.tar_images import index_tar
from prompt_core.errors import UserError

SMALL = {"INPUT.MIN_SIZE_TEST": 60, "INPUT.MAX_SIZE_TEST": 90, "INPUT.TEST_SIZE": 80}


def annotation(box: list[float], category: int, crowd: int = 0) -> dict[str, Any]:
    mask = [box[0], box[1], box[0] + box[2], box[1], box[0], box[1] + box[3]]
    fields = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": category, "iscrowd": crowd}
    return {**fields, "segmentation": [mask]}


def make_record(folder: Path, width: int = 100, height: int = 50) -> dict[str, Any]:
    picture = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = folder / f"{width}x{height}.png"
    Image.fromarray(picture).save(path)
    annotations = [
        annotation([10, 5, 40, 20], 3),
        annotation([0, 0, 90, 45], 1, crowd=1),
        annotation([80, 40, 25, 15], 7),  # over the corner by five pixels each way
    ]
    record = {"file_name": str(path), "width": width, "height": height, "image_id": 9, "annotations": annotations}
    return record | {"neg_category_ids": [4]}


@pytest.mark.parametrize(("width", "height"), [(100, 50), (50, 100), (64, 64)])
@pytest.mark.parametrize("channels", ["BGR", "RGB"])
def test_images_are_detectron2s(tmp_path: Path, width: int, height: int, channels: str) -> None:
    cfg = load_config(None, SMALL | {"INPUT.FORMAT": channels})
    record = make_record(tmp_path, width, height)
    before = copy.deepcopy(record)
    expected = DatasetMapper(cfg, is_train=False)(record)
    for with_ground_truth in (False, True):
        example = build_test_mapper(cfg, with_ground_truth)(record)
        assert torch.equal(example.pop("image"), expected["image"])
        assert ("instances" in example) == with_ground_truth
        example.pop("instances", None)
        assert example == {key: value for key, value in expected.items() if key != "image"}
    assert record == before


@pytest.mark.parametrize(("width", "height", "size"), [(100, 50, (40, 80)), (50, 100, (80, 40)), (31, 20, (52, 80))])
def test_square_resizes_the_longer_side(tmp_path: Path, width: int, height: int, size: tuple[int, int]) -> None:
    cfg = load_config(None, SMALL | {"INPUT.TEST_INPUT_TYPE": "square"})
    example = build_test_mapper(cfg)(make_record(tmp_path, width, height))
    assert example["image"].shape == (3, *size)
    assert (example["height"], example["width"]) == (height, width)


def test_ground_truth_is_resized_and_without_crowds(tmp_path: Path) -> None:
    cfg = load_config(None, SMALL | {"INPUT.TEST_INPUT_TYPE": "square"})
    instances = build_test_mapper(cfg, with_ground_truth=True)(make_record(tmp_path))["instances"]
    assert instances.image_size == (40, 80)
    assert instances.gt_classes.tolist() == [3, 7]
    # 0.8 times the annotated boxes, cut at the image's edge
    torch.testing.assert_close(instances.gt_boxes.tensor, torch.tensor([[8.0, 4, 40, 20], [64, 32, 80, 40]]))
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes"}


@pytest.mark.parametrize("annotations", [[], [annotation([0, 0, 90, 45], 1, crowd=1)]], ids=["none", "crowd"])
def test_images_without_objects(tmp_path: Path, annotations: list[dict[str, Any]]) -> None:
    record = make_record(tmp_path) | {"annotations": annotations}
    instances = build_test_mapper(load_config(None, SMALL), with_ground_truth=True)(record)["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.dtype == torch.int64


def test_photos_inside_an_archive(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(record["file_name"], "photo.png")
    ((_, offset, size),) = index_tar(tmp_path / "a.tar")
    mapper = build_test_mapper(load_config(None, SMALL))
    packed = mapper(record | {"tar": (str(tmp_path / "a.tar"), offset, size)})
    assert torch.equal(packed["image"], mapper(record)["image"])
    assert "tar" not in packed


def test_mistakes(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    with pytest.raises(UserError, match=r"TEST_INPUT_TYPE is 'sqare'; expected default, square; nearest: 'square'"):
        build_test_mapper(load_config(None, {"INPUT.TEST_INPUT_TYPE": "sqare"}))
    mapper = build_test_mapper(load_config(None, SMALL), with_ground_truth=True)
    with pytest.raises(UserError, match=r"100x50\.png has no annotations"):
        mapper({key: value for key, value in record.items() if key != "annotations"})
    with pytest.raises(UserError, match=r"cannot read image .*100x50\.png: .*expect \(100, 51\)"):
        mapper(record | {"height": 51})
    with pytest.raises(UserError, match=r"cannot read image .*absent\.png"):
        mapper(record | {"file_name": str(tmp_path / "absent.png")})
    path = Path(record["file_name"])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"cannot read image .*100x50\.png"):
        mapper(record)
