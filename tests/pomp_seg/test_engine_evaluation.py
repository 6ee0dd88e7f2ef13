"""Evaluation of segmenters by the training tool: which weights, scoring again, several processes, mistakes."""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("detectron2")

from pomp_engine import run
from pomp_seg import load_config
from pomp_seg.task import segmentation_task
from prompt_core import UserError
from prompt_core.evaluation.protocol import read_metrics

from ..support.segmenter_run import (
    NAMES,
    SIZE,
    TEST,
    change_label,
    label,
    make_config,
    make_data,
    save_segmenter,
    tiny_settings,
)
from ..support.segmenter_run import unregister as forget

ROOT = Path(__file__).resolve().parents[2]
REGIONS = "shapes_sem_seg_val_classification"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    make_data(tmp_path)
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    yield tmp_path
    forget()


def configured(folder: Path, stage: int = 2, **changed: Any) -> Any:
    return load_config(None, tiny_settings(folder, stage, **changed))


def predicted(run: Path) -> dict[str, bytes]:
    """The files of an evaluation's predictions, which have several classes in one photo."""
    files = {path.name: path.read_bytes() for path in (run / "inference_tiny/predictions").iterdir()}
    assert len(files) == TEST + 1
    written = [np.asarray(Image.open(run / f"inference_tiny/predictions/{number}.png")) for number in range(TEST)]
    assert all(file.shape == SIZE for file in written)
    assert max(len(np.unique(file)) for file in written) > 1
    return files


def numbers(run: Path) -> dict[str, Any]:
    """What ``metrics.json`` says but for the command."""
    return {key: value for key, value in read_metrics(run / "metrics.json").items() if key != "_run"}


def test_train_evaluate_and_score_again(folder: Path) -> None:
    cfg = configured(folder, **{"SOLVER.MAX_ITER": 2})
    cfg.MODEL.WEIGHTS = str(save_segmenter(folder, cfg))
    results = run.train(segmentation_task(), cfg)
    assert {"mIoU", "fwIoU", "mACC", "pACC", "mIoU-seen", "mIoU-unseen", "hIoU"} <= set(results["tiny"]["sem_seg"])
    before, files = numbers(folder / "run"), predicted(folder / "run")
    assert before["tiny/mIoU"] == results["tiny"]["sem_seg"]["mIoU"]
    assert before["_protocol"]["tiny"]["metric"] == "mIoU"
    for name in ("metrics.json", "model_final.pth", "last_checkpoint", "inference_tiny/metrics.json"):
        (folder / "run" / name).unlink()

    def no_model(*arguments: Any) -> None:
        raise AssertionError("a model was built")

    without_model = dataclasses.replace(segmentation_task(), build=no_model)
    np.testing.assert_equal(run.score(without_model, cfg), results)
    assert numbers(folder / "run") == before
    assert predicted(folder / "run") == files


def test_the_run_in_the_folder_is_evaluated_unless_weights_are_given(folder: Path) -> None:
    cfg = configured(folder, **{"SOLVER.MAX_ITER": 1})
    other = str(save_segmenter(folder, cfg))
    changed = configured(folder, **{"SOLVER.MAX_ITER": 1, "MODEL.WEIGHTS": other, "SOLVER.BASE_LR": 0.1})
    run.train(segmentation_task(), changed)
    trained = predicted(folder / "run")
    run.evaluate(segmentation_task(), cfg)
    assert predicted(folder / "run") == trained
    run.evaluate(segmentation_task(), cfg, weights=other)
    assert predicted(folder / "run") != trained
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS is empty and .* holds no run"):
        run.evaluate(segmentation_task(), configured(folder, OUTPUT_DIR=str(folder / "nothing")))
    with pytest.raises(UserError, match=r"DATASETS.TEST is empty"):
        run.evaluate(segmentation_task(), configured(folder, **{"DATASETS.TEST": []}), weights=other)


def test_the_denominator_of_the_configuration_is_used_and_stamped(folder: Path) -> None:
    """A class that is predicted and nowhere true counts in the union only."""
    for number in range(TEST):
        path = label(folder, number, "val")
        labels = np.asarray(Image.open(path)).copy()
        labels[labels == 0] = 1
        Image.fromarray(labels).save(path)
    cfg = configured(folder)
    weights = str(save_segmenter(folder, cfg))
    new = run.evaluate(segmentation_task(), cfg, weights)["tiny"]["sem_seg"]
    rows = json.loads((folder / "run/inference_tiny/per_class.json").read_text())["classes"]
    assert [row["pixels"] == 0 for row in rows] == [True, False, False, False]
    assert rows[0]["predicted_pixels"] > 0
    cfg.TEST.MIOU_DENOMINATOR = "union"
    for results in (run.score(segmentation_task(), cfg), run.evaluate(segmentation_task(), cfg, weights)):
        assert results["tiny"]["sem_seg"]["mIoU"] == pytest.approx(new["mIoU"] * 3 / 4)
        assert numbers(folder / "run")["_protocol"]["tiny"]["miou_denominator"] == "union"


def test_regions_are_classified_and_leave_no_predictions(folder: Path) -> None:
    cfg = configured(folder, 1, **{"SOLVER.MAX_ITER": 2})
    results = run.train(segmentation_task(), cfg)[REGIONS]["classification"]
    assert set(results) == {"accuracy", "mean_class_accuracy", "accuracy-seen", "accuracy-unseen"}
    assert 0 < results["accuracy"] < 100
    with pytest.raises(UserError, match="a prompt tuning leaves no predictions to score again; use --eval-only"):
        run.score(segmentation_task(), cfg)


def test_another_vocabulary_of_the_same_classes(folder: Path) -> None:
    """The names of the data set as MODEL.VOCABULARY change nothing but that no class counts as seen."""
    settings = {"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE": False}
    cfg = configured(folder, **settings)
    weights = str(save_segmenter(folder, cfg))
    run.evaluate(segmentation_task(), cfg, weights)
    expected = predicted(folder / "run")
    run.evaluate(segmentation_task(), configured(folder, **settings, **{"MODEL.VOCABULARY": ",".join(NAMES)}), weights)
    assert predicted(folder / "run") == expected


def tool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/train_net.py"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "POMP_DATA": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_two_processes_train_and_evaluate_as_one_does(folder: Path, stage: int) -> None:
    changed: dict[str, Any] = {"SOLVER.MAX_ITER": 3}
    if stage == 2:
        changed["MODEL.WEIGHTS"] = str(save_segmenter(folder, configured(folder)))
    config = str(make_config(folder, stage, **changed))
    two = ["--config", config, "--output", "two", "--num-gpus", "0", "--num-processes", "2"]
    trained = tool(folder, *two)
    assert trained.returncode == 0, trained.stderr
    result = tool(folder, "--config", config, "--output", "one", "--eval-only", "MODEL.WEIGHTS", "two/model_final.pth")
    assert result.returncode == 0, result.stderr
    assert numbers(folder / "one") == numbers(folder / "two")
    if stage == 2:
        assert predicted(folder / "one") == predicted(folder / "two")
        for name in ("confusion.npy", "per_class.json"):
            files = [folder / run / "inference_tiny" / name for run in ("one", "two")]
            assert files[0].read_bytes() == files[1].read_bytes()


def test_a_mistake_that_one_of_two_processes_finds_is_reported_once(folder: Path) -> None:
    """In training, so that the other process waits for gradients when the mistake is found."""
    change_label(label(folder, 1), 9)
    stopped = tool(folder, "--config", str(make_config(folder)), "--num-gpus", "0", "--num-processes", "2")
    assert stopped.returncode == 2
    last = stopped.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: label file {label(folder, 1)} has the value 9; expected 0..2, or 255")
    assert stopped.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--oracle", "boxes"], "--oracle and --eval-backend are for detectors"),
        (["--eval-backend", "reference"], "--oracle and --eval-backend are for detectors"),
        (["--resume", "--eval-only"], "--resume is for training"),
        (["--score-only"], "inference_tiny holds no predictions"),
        (["--eval-only"], "MODEL.WEIGHTS is empty and"),
        (["--eval-only", "MODEL.WEIGHTS", "absent.pth"], "weights absent.pth do not exist"),
        (["TEST.MIOU_DENOMINATOR", "unoin"], "'unoin'; expected ground_truth or union; nearest: 'union'"),
        (["--output", "all.txt/run"], "cannot write to all.txt/run: Not a directory; choose a writable --output"),
        (["SOLVER.MAXITER", "3"], "unknown key 'SOLVER.MAXITER'"),
        (["MODEL.META_ARCHITECTURE", "MaskFromer"], "neither a detector nor a segmenter; nearest: 'MaskFormer'"),
    ],
)
def test_mistakes_on_the_command_line(
    folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config = make_config(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--config", str(config), "--num-gpus", "0", *arguments])
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the tool hides the GPUs from what follows
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "tools/train_net.py"), run_name="__main__")
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not list(folder.glob("run/*.pth"))
