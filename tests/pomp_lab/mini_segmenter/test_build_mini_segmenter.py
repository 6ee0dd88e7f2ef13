"""The embedded segmenter's build by the commands of its tool: labels, a training that is stopped, weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_engine import loop
from pomp_lab.mini_segmenter.pixel_labels import VOC_SPELLINGS, plain_names
from pomp_seg import load_config
from pomp_seg.data.label_sets import label_set
from pomp_seg.pixel_shares import background_names
from pomp_seg.predictor import OpenVocabularySegmenter

from ...support.tools import call_tool

__all__ = ["call_tool"]

CONFIG = Path(__file__).resolve().parents[3] / "configs/mini/segmenter.yaml"
SIZE = (64, 80)  # height, width
COCO, VOC = ("000000000001", "000000000002"), ("2007_000032", "2007_000039")


def test_names_of_the_package_are_those_of_the_recipe() -> None:
    shipped = background_names(load_config(CONFIG).MODEL.SEM_SEG_HEAD.BACKGROUND)
    assert shipped is not None
    names = plain_names(list(label_set("coco_panoptic").vocabulary.names))
    assert list(shipped.names) == [*names, *VOC_SPELLINGS]


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data root with a few generated photos where the recipe looks for COCO's and VOC's."""
    random = np.random.default_rng(0)

    def photo(path: str) -> None:
        save(tmp_path / path, random.integers(0, 256, (*SIZE, 3), dtype=np.uint8))

    def labels(path: str, values: tuple[int, ...]) -> None:
        save(tmp_path / path, np.repeat(np.array(values, np.uint8), SIZE[0] * SIZE[1] // len(values)).reshape(SIZE))

    for name in COCO:
        photo(f"coco128/train2017/{name}.jpg")
        labels(f"coco_small_seg/train/{name}.png", (0, 255, 16, 120))
    photo("coco_more/train2017/3.jpg")
    square = {"image_id": 3, "category_id": 1, "area": 400.0, "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}
    document = {
        "images": [{"id": 3, "file_name": "3.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [square],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "coco_more/annotations").mkdir()
    (tmp_path / "coco_more/annotations/instances_train2017.json").write_text(json.dumps(document))
    places = (
        ("voc_boxes", "train2007", "train"),
        ("voc_boxes", "val2007", "val"),
        ("voc_seg/VOC2012", "JPEGImages", "train"),
    )
    for name, (root, photos, part) in zip((*VOC, "2012_1"), places, strict=True):
        photo(f"{root}/{photos}/{name}.jpg")
        labels(f"{root}/SegmentationClass/{name}.png", (0, 15, 255, 8))
        lists = tmp_path / root / "ImageSets/Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{part}.txt").write_text(f"{name}\n")
    yield tmp_path
    DatasetCatalog.pop("mini_seg", None)
    MetadataCatalog.pop("mini_seg", None)


@pytest.mark.slow
def test_the_whole_build(data: Path, call_tool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, error = call_tool("build_mini_segmenter", "--labels", data)
    assert (code, error) == (0, ""), error
    assert "voc_val: 1 photos" in out
    folder = data / "mini_seg"
    parts = [str(folder / part) for part in ("train/labels", "train/photos", "names.txt")]
    small = {
        "DATASETS.FILES": [["mini_seg", *parts]],
        "DATASETS.TRAIN": ["mini_seg"],
        "MODEL.WEIGHTS": "package://pomp_det/assets/detector.safetensors",  # holds the frozen networks too
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.CROP.SIZE": (64, 64),
        "INPUT.SIZE_DIVISIBILITY": 64,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 4,
        "SOLVER.WARMUP_ITERS": 1,
        "SOLVER.RESUME_PERIOD": 2,
    }

    def train(name: str, *more: str) -> tuple[int, str, str]:
        options = [part for key, value in small.items() for part in (key, str(value))]
        where = ("OUTPUT_DIR", str(data / name))
        result: tuple[int, str, str] = call_tool(
            "train_net", "--config", CONFIG, "--num-gpus", "0", *more, *options, *where
        )
        return result

    code, _, error = train("whole")
    assert code == 0, error
    check = loop.stop_if_not_finite

    def stopped(losses: Any, batch: Any, iteration: int, output: Any) -> None:
        check(losses, batch, iteration, output)
        if iteration == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "stop_if_not_finite", stopped)
        assert train("run")[0] == 130
    assert not (data / "run/model_final.pth").exists()
    code, _, error = train("run", "--resume")
    assert code == 0, error
    whole, resumed = (
        torch.load(data / name / "model_final.pth", weights_only=True)["model"] for name in ("whole", "run")
    )
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())

    made = data / "made"
    code, out, error = call_tool("build_mini_segmenter", "--output", made, "--finish", data / "run/model_final.pth")
    assert code == 0, error
    finished = load_file(made / "segmenter.safetensors")
    start = load_file(CONFIG.parents[2] / "pomp_det/assets/detector.safetensors")
    assert {value.dtype for value in finished.values()} == {torch.float16}
    for key, value in finished.items():
        assert torch.equal(value, resumed[key].half())
        if key.startswith("backbone."):
            assert torch.equal(value, start[key]), key  # the networks stay frozen
    cfg = load_config(CONFIG, {"MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": str(made / "segmenter.safetensors")})
    segmenter = OpenVocabularySegmenter.load(cfg)
    segmenter.set_vocabulary(["person", "sky"])
    found = segmenter(np.zeros((*SIZE, 3), np.uint8))
    assert set(np.unique(found.labels)) <= {0, 1, 2}
