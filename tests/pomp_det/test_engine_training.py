"""Training runs: what they write, how they resume, and what stops them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_det import build_detector, load_config
from pomp_det.checks import register_configured
from pomp_det.task import detection_task
from pomp_engine import loop as training
from pomp_engine.solver import build_optimizer, build_scheduler
from prompt_core import UserError

from ..support.detector_run import make_config, make_data, tiny_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _data_set() -> Any:
    yield
    DatasetCatalog.pop("tiny", None)
    MetadataCatalog.pop("tiny", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_data(tmp_path)
    return tmp_path


def train(folder: Path, name: str = "run", resume: bool = False, **changed: Any) -> dict[str, torch.Tensor]:
    """Train in ``folder/name``; the weights afterwards."""
    cfg = load_config(None, tiny_settings(folder, **{"OUTPUT_DIR": str(folder / name), **changed}))
    register_configured(cfg)
    torch.manual_seed(cfg.SEED)
    training.train(detection_task(), cfg, build_detector(cfg), resume)
    return torch.load(folder / name / "model_final.pth", weights_only=True)["model"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a run of 6 iterations next to it, which others are compared with; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    make_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "LOG_PERIOD", 1)
        train(folder)
    return folder


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(whole, tmp_path / "finished"))


def same(whole: Path, weights: dict[str, torch.Tensor]) -> bool:
    """Whether a run came to the same weights as the whole one."""
    expected = torch.load(whole / "run/model_final.pth", weights_only=True)["model"]
    return expected.keys() == weights.keys() and all(torch.equal(expected[key], weights[key]) for key in expected)


def test_a_run_leaves_its_files(whole: Path) -> None:
    assert {path.name for path in (whole / "run").iterdir()} == {
        "config.yaml", "last_checkpoint", "log.jsonl", "model_final.pth", "tensorboard",
    }  # fmt: skip
    weights = torch.load(whole / "run/model_final.pth", weights_only=True)["model"]
    assert "roi_heads.box_predictor.0.cls_score.zs_weight" in weights
    lines = [json.loads(line) for line in (whole / "run/log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(6))
    assert all(line["total_loss"] > 0 for line in lines)
    assert load_config(whole / "run/config.yaml").SOLVER.MAX_ITER == 6


def test_a_run_learns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_PERIOD", 5)
    train(folder, **{"SOLVER.MAX_ITER": 10, "SOLVER.BASE_LR": 0.01, "SOLVER.WARMUP_ITERS": 0})
    lines = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
    totals = [line["total_loss"] for line in lines if "total_loss" in line]
    assert totals[-1] < 0.8 * totals[0]


def stop_at(iteration: int, monkeypatch: pytest.MonkeyPatch, how: Any) -> None:
    """Call ``how`` in the middle of an iteration."""
    check = training.stop_if_not_finite

    def checked(losses: Any, batch: Any, number: int, output: Any) -> None:
        check(losses, batch, number, output)
        if number == iteration:
            how()

    monkeypatch.setattr(training, "stop_if_not_finite", checked)


def test_a_stopped_run_resumes_to_the_same_weights(whole: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log has each iteration once."""
    monkeypatch.setattr(training, "LOG_PERIOD", 1)

    def fail() -> None:
        raise RuntimeError("the machine goes away")

    with monkeypatch.context() as patch:
        stop_at(5, patch, fail)
        with pytest.raises(RuntimeError):
            train(folder)
    assert (folder / "run/last_checkpoint").read_text() == "model_last.pth"
    with open(folder / "run/log.jsonl", "a", encoding="utf-8") as log:
        log.write('{"iteration": 9, "lo')
    assert same(whole, train(folder, resume=True))
    assert not (folder / "run/model_last.pth").exists()
    numbers = [json.loads(line)["iteration"] for line in (folder / "run/log.jsonl").read_text().splitlines()]
    assert numbers == list(range(6))


KILLED = """
import os, runpy, signal, sys
from pomp_engine import loop as training
check = training.stop_if_not_finite
def checked(losses, batch, iteration, output):
    check(losses, batch, iteration, output)
    if iteration == 5:
        os.kill(os.getpid(), signal.SIGKILL)
training.stop_if_not_finite = checked
sys.argv = ["train_net.py", "--config", sys.argv[1], "DATASETS.TEST", "()"]
runpy.run_path(os.environ["TOOL"], run_name="__main__")
"""


def test_a_killed_process_resumes_to_the_same_weights(whole: Path, folder: Path) -> None:
    config = make_config(folder)
    environment = {
        "PATH": "",
        "TOOL": str(ROOT / "tools/train_net.py"),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    killed = subprocess.run([sys.executable, "-c", KILLED, str(config)], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert {path.name for path in (folder / "run").glob("*.pth")} == {"model_last.pth"}
    assert same(whole, train(folder, resume=True))


def test_ctrl_c_saves_and_the_run_goes_on(whole: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(1, patch, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(folder)
    assert torch.load(folder / "run/model_last.pth", weights_only=True)["iteration"] == 1
    assert same(whole, train(folder, resume=True))


def test_a_folder_with_a_run_is_not_trained_over(finished: Path) -> None:
    before = (finished / "run/model_final.pth").read_bytes()
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        train(finished)
    train(finished, resume=True)  # finished: nothing to do
    assert (finished / "run/model_final.pth").read_bytes() == before


def test_a_resumed_run_is_the_same_run(finished: Path) -> None:
    config = (finished / "run/config.yaml").read_text()
    for key, was, now in (("SOLVER.BASE_LR", 0.001, 0.5), ("INPUT.TRAIN_SIZE", 64, 32), ("SOLVER.MAX_ITER", 6, 7)):
        with pytest.raises(UserError, match=rf"other settings \({key}; {key} was {was}, now {now}\); give the same"):
            train(finished, resume=True, **{key: now})
    annotations = finished / "boxes.json"
    annotations.write_text(annotations.read_text().replace("toy car", "old car"))
    with pytest.raises(UserError, match=r"other settings \(training_data; training_data was '"):
        train(finished, resume=True)
    annotations.write_text(annotations.read_text().replace("old car", "toy car"))
    assert (finished / "run/config.yaml").read_text() == config
    train(finished, resume=True, **{"DATALOADER.NUM_WORKERS": 1, "INPUT.MIN_SIZE_TEST": 32, "DATASETS.TEST": ()})


def test_a_run_without_a_seed_keeps_the_one_it_drew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.comm, "shared_random_seed", lambda: 77)
    with monkeypatch.context() as patch:
        stop_at(1, patch, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(folder, SEED=-1, **{"SOLVER.MAX_ITER": 3})
    monkeypatch.setattr(training.comm, "shared_random_seed", lambda: 78)
    train(folder, resume=True, SEED=-1, **{"SOLVER.MAX_ITER": 3})
    assert torch.load(folder / "run/model_final.pth", weights_only=True)["seed"] == 77


def test_a_loss_that_is_no_number_stops_with_the_file_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pomp_det.proposals.centernet import CenterNet

    forward = CenterNet.forward
    calls = []

    def broken(self: Any, *arguments: Any) -> Any:
        proposals, losses = forward(self, *arguments)
        calls.append(1)
        if len(calls) == 5:
            losses = {name: loss * float("nan") for name, loss in losses.items()}
        return proposals, losses

    monkeypatch.setattr(CenterNet, "forward", broken)
    with pytest.raises(UserError, match=r"not finite at iteration 4 \(loss_centernet_loc nan"):
        train(folder)
    document = json.loads((folder / "run/not_finite_rank0.json").read_text())
    assert document["iteration"] == 4
    assert len(document["images"]) == 2
    assert all(Path(image["file_name"]).is_file() for image in document["images"])
    assert torch.load(folder / "run/model_last.pth", weights_only=True)["iteration"] == 2


def test_classes_are_reset_before_training(folder: Path) -> None:
    import numpy as np

    matrix = np.random.default_rng(1).normal(size=(3, 24)).astype(np.float32)
    np.save(folder / "other.npy", matrix)
    changed = {"MODEL.RESET_CLS_TRAIN": True, "MODEL.TRAIN_CLASSIFIERS": [str(folder / "other.npy")]}
    weights = train(folder, **changed, **{"MODEL.TRAIN_NUM_CLASSES": [3], "SOLVER.MAX_ITER": 1})
    rows = weights["roi_heads.box_predictor.2.cls_score.zs_weight"][:, :3].T
    torch.testing.assert_close(rows, torch.nn.functional.normalize(torch.from_numpy(matrix), dim=1))
    with pytest.raises(UserError, match=r"has 3 classes, MODEL.TRAIN_NUM_CLASSES says 4"):
        train(folder, "again", **changed, **{"MODEL.TRAIN_NUM_CLASSES": [4], "SOLVER.MAX_ITER": 1})


def test_missing_class_counts_are_reported_before_the_first_step(folder: Path) -> None:
    changed = {"MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True, "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(folder / "no.json")}
    with pytest.raises(UserError, match=r"the box loss needs the images per class .*no\.json"):
        train(folder, **changed)
    assert not list((folder / "run").glob("*.pth"))


def test_images_without_masks_train_the_boxes_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "boxes.json"
    document = json.loads(path.read_text())
    for annotation in document["annotations"]:
        if annotation["image_id"] % 2:
            del annotation["segmentation"]
    path.write_text(json.dumps(document))
    train(folder, **{"SOLVER.MAX_ITER": 2})
    assert "3 of 6 images have boxes and no masks" in caplog.text


def test_the_published_schedule() -> None:
    """Linear warm-up from 1e-4 of the rate over 10,000 of 90,000 iterations, then a half cosine to 0."""
    cfg = load_config(ROOT / "configs/detection/lvis_boxes.yaml")
    optimizer = build_optimizer(cfg, torch.nn.Linear(2, 2))
    scheduler = build_scheduler(cfg, optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2e-4 * 1e-4)
    seen = {}
    for iteration in range(1, 90_000):
        scheduler.last_epoch = iteration
        if iteration in (5_000, 50_000, 89_999):
            seen[iteration] = scheduler.get_lr()[0]
    # The warm-up ends on the cosine, not on the base rate.
    end_of_warm_up = 1e-4 * (1 + torch.cos(torch.tensor(torch.pi / 9)).item())
    assert seen[5_000] == pytest.approx((2e-8 + end_of_warm_up) / 2, rel=1e-3)
    assert seen[50_000] == pytest.approx(1e-4 * (1 + torch.cos(torch.tensor(torch.pi * 5 / 9)).item()), rel=1e-4)
    assert seen[89_999] < 1e-9


def test_a_rate_that_diverges_is_one_line(folder: Path) -> None:
    message = "a loss is not finite at iteration|training diverged: .* holds NaN or infinity"
    with pytest.raises(UserError, match=message):
        train(folder, **{"SOLVER.BASE_LR": 1e9, "SOLVER.WARMUP_ITERS": 0, "SOLVER.RESUME_PERIOD": 1})
    assert not (folder / "run/model_final.pth").exists()
