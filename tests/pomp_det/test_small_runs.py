"""The small configuration on real photos: it fits them, and its memory stays where it is."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from pomp_det import build_detector, load_config
from pomp_det.checks import register_configured
from pomp_det.data.prepare.coco_small import prepare_coco_small
from pomp_det.task import detection_task
from pomp_engine import loop as training
from pomp_engine import run
from pomp_engine.checkpoint import packaged_file
from prompt_core import UserError
from prompt_core.fetch.places import PACKAGE

CONFIG = Path(__file__).resolve().parents[2] / "configs/mini/coco_pomp.yaml"


@pytest.fixture(scope="module")
def data_root(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """COCO photos with boxes and masks, and the real class matrices, laid out as a data root."""
    root = tmp_path_factory.mktemp("data")
    for name in ("coco128", "coco128_val", "coco_more"):
        with tarfile.open(shared / f"data/{name}.tar") as archive:
            archive.extractall(root, filter="data")
    (root / "metadata").symlink_to(shared / "data/clip_text")
    prepare_coco_small(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POMP_DATA", str(root))
        yield root


def configured(output: Path, **changed: Any) -> Any:
    cfg = load_config(CONFIG, {"OUTPUT_DIR": str(output), "MODEL.DEVICE": "cpu", **changed})
    try:
        packaged_file(cfg.MODEL.WEIGHTS)
    except UserError as error:
        assert cfg.MODEL.WEIGHTS.startswith(PACKAGE)
        pytest.skip(str(error))
    return cfg


def resident_memory() -> int:
    """Kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def test_a_few_steps_on_real_photos(data_root: Path, tmp_path: Path) -> None:
    cfg = configured(tmp_path, **{"SOLVER.MAX_ITER": 3, "SOLVER.IMS_PER_BATCH": 2, "DATASETS.TEST": ()})
    run.train(detection_task(), cfg)
    assert (tmp_path / "model_final.pth").is_file()


@pytest.mark.slow
def test_memory_is_flat_over_500_steps(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = configured(tmp_path, **{"SOLVER.MAX_ITER": 500, "DATASETS.TEST": ()})
    seen: list[int] = []
    check = training.stop_if_not_finite

    def measured(*arguments: Any) -> None:
        check(*arguments)
        seen.append(resident_memory())

    monkeypatch.setattr(training, "stop_if_not_finite", measured)
    register_configured(cfg)
    training.train(detection_task(), cfg, build_detector(cfg))
    settled = max(seen[50:150])
    assert max(seen[150:]) < 1.05 * settled


@pytest.mark.slow
def test_the_small_detector_fits_its_photos(data_root: Path, tmp_path: Path) -> None:
    """Takes most of an hour; docs/results/coco_small.json holds the numbers of such a run."""
    results = run.train(detection_task(), configured(tmp_path))
    assert results["coco_small_train"]["bbox"]["AP50"] >= 50
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["coco_small_val/box_AP50"] > 0
    assert document["coco_small_val_masks/mask_AP50"] > 0
