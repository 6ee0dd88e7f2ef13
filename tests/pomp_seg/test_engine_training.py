"""Training runs of segmenters: what they write, how they resume, and what stops them; both stages."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from pomp_engine import loop as training
from pomp_engine import run
from pomp_seg import build_segmenter, load_config
from pomp_seg.data.registration import register_configured
from pomp_seg.task import segmentation_task
from prompt_core import UserError

from ..support.segmenter_run import make_config, make_data, tiny_settings, unregister

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    make_data(tmp_path)
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    yield tmp_path
    unregister()


def train(folder: Path, name: str = "run", stage: int = 2, resume: bool = False, **changed: Any) -> dict[str, Any]:
    """Train in ``folder/name``; the weights afterwards."""
    cfg = load_config(None, tiny_settings(folder, stage, **{"OUTPUT_DIR": str(folder / name), **changed}))
    register_configured(cfg)
    torch.manual_seed(cfg.SEED)
    training.train(segmentation_task(), cfg, build_segmenter(cfg), resume)
    weights: dict[str, Any] = torch.load(folder / name / "model_final.pth", weights_only=True)["model"]
    return weights


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_run_learns_and_leaves_its_files(folder: Path, stage: int) -> None:
    train(folder, stage=stage, **{"SOLVER.MAX_ITER": 40, "SOLVER.BASE_LR": 0.003})
    assert {path.name for path in (folder / "run").iterdir()} == {
        "config.yaml", "last_checkpoint", "log.jsonl", "model_final.pth", "tensorboard",
    }  # fmt: skip
    lines = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
    totals = [line["total_loss"] for line in lines if "total_loss" in line]
    assert totals[-1] < 0.95 * totals[0]
    assert load_config(folder / "run/config.yaml").SOLVER.MAX_ITER == 40


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


def environment(folder: Path) -> dict[str, str]:
    """Of a process that computes as this one does."""
    tool = str(ROOT / "tools/train_net.py")
    threads = str(torch.get_num_threads())
    root = str(folder)
    more = {"POMP_DATA": root, "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    return {"PATH": "", "TOOL": tool, "OMP_NUM_THREADS": threads, **more}


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_killed_process_resumes_to_the_same_weights(folder: Path, stage: int) -> None:
    changed = {"SOLVER.MAX_ITER": 8}
    whole = train(folder, "whole", stage, **changed)
    config = make_config(folder, stage, **changed)
    command = [sys.executable, "-c", KILLED, str(config)]
    killed = subprocess.run(command, env=environment(folder), capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert {path.name for path in (folder / "run").glob("*.pth")} == {"model_last.pth"}
    assert torch.load(folder / "run/model_last.pth", weights_only=True)["iteration"] == 2
    resumed = train(folder, stage=stage, resume=True, **changed)
    assert same(whole, resumed)
    assert not same(whole, train(folder, "other", stage, **changed, SEED=5))
    assert not (folder / "run/model_last.pth").exists()


def test_the_batches_do_not_depend_on_the_workers(folder: Path) -> None:
    assert same(train(folder, "none"), train(folder, "two", **{"DATALOADER.NUM_WORKERS": 2}))


def test_stage_2_reads_the_prompt_that_stage_1_tuned(folder: Path) -> None:
    key = "clip_adapter.prompt_learner.prefix_prompt"
    began = load_config(None, tiny_settings(folder, 1))
    torch.manual_seed(began.SEED)
    before = build_segmenter(began).state_dict()[key]
    tuned = train(folder, "stage1", 1)[key]
    assert float((tuned - before).abs().max()) > 1e-3
    weights = train(folder, "stage2", 2, **{CHECKPOINT: str(folder / "stage1/model_final.pth")})
    assert torch.equal(weights[key], tuned)  # and stays as it is
    assert not torch.equal(train(folder, "free", 2)[key], tuned)


def test_two_data_sets_of_the_same_classes_share_a_batch(folder: Path) -> None:
    settings = tiny_settings(folder)
    rows = settings["DATASETS.FILES"]
    twice = [*rows, ["tiny_again", *rows[0][1:]]]
    changed = {"DATASETS.FILES": twice, "DATASETS.TRAIN": ["tiny_train", "tiny_again"], "SOLVER.MAX_ITER": 3}
    mixed = []
    check = training.stop_if_not_finite

    def checked(losses: Any, batch: Any, *more: Any) -> None:
        check(losses, batch, *more)
        mixed.append(len({example["meta"]["dataset_name"] for example in batch}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "stop_if_not_finite", checked)
        cfg = load_config(None, settings | changed | {"SOLVER.IMS_PER_BATCH": 4, "DATASETS.TEST": []})
        assert run.train(segmentation_task(), cfg) == {}
    assert max(mixed) == 2


@pytest.mark.parametrize("stage", [1, 2])
def test_a_loss_that_is_no_number_stops_with_the_file_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    """The weights become NaN, as those of a run that diverges do; then everything that follows from them is."""
    seed = training.seed_iteration

    def spoil(number: int, iteration: int) -> None:
        seed(number, iteration)
        if iteration == 4:
            next(parameter for parameter in models[0].parameters() if parameter.requires_grad).data.fill_(float("nan"))

    models: list[Any] = []
    wrap = training.create_ddp_model
    monkeypatch.setattr(training, "create_ddp_model", lambda model, **more: models.append(model) or wrap(model, **more))
    monkeypatch.setattr(training, "seed_iteration", spoil)
    with pytest.raises(UserError, match=r"not finite at iteration 4 \(loss_c\w+ nan"):
        train(folder, stage=stage)
    document = json.loads((folder / "run/not_finite_rank0.json").read_text())
    assert document["iteration"] == 4
    assert len(document["images"]) == 2
    assert all(Path(image["file_name"]).is_file() for image in document["images"])
    saved = torch.load(folder / "run/model_last.pth", weights_only=True)
    assert saved["iteration"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in saved["model"].values())


@pytest.mark.parametrize("stage", [1, 2])
def test_an_evaluation_amid_the_training_changes_nothing_in_it(folder: Path, stage: int) -> None:
    weights = []
    for name, period in (("plain", 0), ("periodic", 2)):
        changed = {"OUTPUT_DIR": str(folder / name), "TEST.EVAL_PERIOD": period, "SOLVER.MAX_ITER": 5}
        run.train(segmentation_task(), load_config(None, tiny_settings(folder, stage, **changed)))
        weights.append(torch.load(folder / name / "model_final.pth", weights_only=True)["model"])
    assert same(*weights)
    lines = [json.loads(line) for line in (folder / "periodic/log.jsonl").read_text().splitlines()]
    number = "shapes_sem_seg_val_classification/accuracy" if stage == 1 else "tiny/mIoU"
    assert [line["iteration"] for line in lines if number in line] == [3]
    assert not [line for line in (folder / "plain/log.jsonl").read_text().splitlines() if number in line]


GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is usable here"))


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("kind", ["ZeroShotMaskFormer", "ZeroShotPerPixelModel"])
def test_half_precision_is_for_the_backbone_on_a_gpu(folder: Path, kind: str, device: str) -> None:
    changed: dict[str, Any] = {"MODEL.DEVICE": device, "MODEL.META_ARCHITECTURE": kind}
    if kind == "ZeroShotPerPixelModel":
        changed |= {"MODEL.SEM_SEG_HEAD.NAME": "ZeroPerPixelBaselineHead", "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 116}
    weights = train(folder, "half", FP16=True, **changed)
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    if device == "cpu":
        assert same(weights, train(folder, "single", **changed))
    model = build_segmenter(load_config(None, tiny_settings(folder, FP16=True, **changed))).eval()
    kinds = []
    model.backbone.stem.conv1.register_forward_hook(lambda module, given, output: kinds.append(output.dtype))
    model.sem_seg_head.register_forward_pre_hook(lambda module, given: kinds.append(given[0]["res5"].dtype))
    with torch.no_grad():
        model([{"image": torch.zeros(3, 48, 64, dtype=torch.uint8), "meta": {"dataset_name": "tiny"}}])
    assert kinds == [torch.float32 if device == "cpu" else torch.float16, torch.float32]


def resident_memory() -> int:
    """Kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_memory_is_flat_over_500_steps(folder: Path, monkeypatch: pytest.MonkeyPatch, stage: int) -> None:
    seen: list[int] = []
    check = training.stop_if_not_finite

    def measured(*arguments: Any) -> None:
        check(*arguments)
        seen.append(resident_memory())

    monkeypatch.setattr(training, "stop_if_not_finite", measured)
    train(folder, stage=stage, **{"SOLVER.MAX_ITER": 500, "SOLVER.RESUME_PERIOD": 100})
    assert len(seen) == 500
    assert max(seen[150:]) < 1.05 * max(seen[50:150])


def test_a_rate_that_diverges_is_one_line(folder: Path) -> None:
    message = "a loss is not finite at iteration|training diverged: .* holds NaN or infinity"
    with pytest.raises(UserError, match=message):
        train(folder, **{"SOLVER.BASE_LR": 1e9, "SOLVER.WARMUP_ITERS": 0, "SOLVER.RESUME_PERIOD": 1})
    assert not (folder / "run/model_final.pth").exists()
