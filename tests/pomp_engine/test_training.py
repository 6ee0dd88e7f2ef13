"""The loop with a model of another task: what it calls when, and runs that go on where they stopped."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.config import CfgNode, get_cfg

from pomp_engine import loop as training
from pomp_engine import run as whole_run
from pomp_engine.checkpoint import ModelCheckpointer
from pomp_engine.config import add_engine_config, merge_config
from pomp_engine.loader import images_per_rank, seed_of_run, seeded_loader
from pomp_engine.loop import train
from pomp_engine.run_folder import cut_log, weights_to_evaluate
from pomp_engine.solver import build_segmentation_optimizer
from pomp_engine.task import Task
from prompt_core import UserError

from ..support.held_folder import held

RECORDS = [{"file_name": f"{number}.png", "target": number / 5} for number in range(6)]


class Fit(torch.nn.Module):
    """A line through points, with dropout, so that a step also depends on what the model draws."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = torch.nn.Linear(1, 8)
        self.head = torch.nn.Linear(8, 1)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = torch.stack([example["x"] for example in batch])
        targets = torch.stack([example["y"] for example in batch])
        outputs = self.head(torch.nn.functional.dropout(self.backbone(inputs).relu(), 0.2))
        return {"loss_fit": (outputs - targets).square().mean()}


def mapper(record: dict[str, Any]) -> dict[str, Any]:
    x = record["target"] + 0.1 * np.random.rand()  # noqa: NPY002
    return {**record, "x": torch.tensor([x], dtype=torch.float32), "y": torch.tensor([record["target"]])}


def loader(cfg: CfgNode, model: Fit, start: int) -> Any:
    return seeded_loader(RECORDS, mapper, images_per_rank(cfg), seed_of_run(cfg, start), start=start)


def settings(folder: Path, **changed: Any) -> CfgNode:
    cfg = get_cfg()
    add_engine_config(cfg)
    overrides = {
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "",
        "SEED": 3,
        "OUTPUT_DIR": str(folder),
        "SOLVER.OPTIMIZER": "ADAMW",
        "SOLVER.LR_SCHEDULER_NAME": "WarmupPolyLR",
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.WARMUP_ITERS": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 8,
        "SOLVER.RESUME_PERIOD": 3,
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
    }
    return merge_config(cfg, None, overrides | changed)


def nothing(*arguments: Any) -> Any:
    """Stands for the parts of a task that the loop does not call."""
    raise AssertionError


TASK = Task(
    package="pomp_engine",
    register=nothing,
    build=nothing,
    check=nothing,
    load=nothing,
    build_loader=loader,
    evaluate=nothing,
    score=nothing,
    build_optimizer=build_segmentation_optimizer,
)


def run(cfg: CfgNode, resume: bool = False, evaluate: Any = None, **parts: Any) -> dict[str, Any]:
    train(dataclasses.replace(TASK, **parts), cfg, Fit(), resume, evaluate)
    return torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.equal(value, second["model"][key]) for key, value in first["model"].items())


def test_a_run_learns_and_leaves_its_files(tmp_path: Path) -> None:
    cfg = settings(tmp_path / "run", **{"SOLVER.MAX_ITER": 60, "SOLVER.BASE_LR": 0.05})
    saved = run(cfg)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.yaml", "last_checkpoint", "log.jsonl", "model_final.pth", "tensorboard",
    }  # fmt: skip
    assert saved["iteration"] == 59
    assert saved["seed"] == 3
    losses = [json.loads(line)["loss_fit"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert weights_to_evaluate(cfg) == str(tmp_path / "run/model_final.pth")


def test_a_run_that_ends_within_its_warm_up_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pomp_engine"), "propagate", True)  # a run's log turns it off
    run(settings(tmp_path / "short", **{"SOLVER.WARMUP_ITERS": 8}))
    assert {record.message for record in caplog.records if record.levelname == "WARNING"} == {
        "SOLVER.MAX_ITER is 8 and SOLVER.WARMUP_ITERS 8: the whole run is warm-up and never learns at SOLVER.BASE_LR "
        "0.01; set SOLVER.WARMUP_ITERS below 8"
    }
    caplog.clear()
    run(settings(tmp_path / "long"))
    assert not [record for record in caplog.records if "warm-up" in record.message]


@pytest.mark.parametrize("iteration", [1, 4])
def test_an_interrupted_run_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iteration: int
) -> None:
    whole = run(settings(tmp_path / "whole"))
    check = training.stop_if_not_finite

    def interrupt(losses: Any, batch: Any, number: int, folder: Any) -> None:
        check(losses, batch, number, folder)
        if number == iteration:
            signal.raise_signal(signal.SIGINT)

    cfg = settings(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_if_not_finite", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    assert torch.load(tmp_path / "run/model_last.pth", weights_only=True)["iteration"] == iteration
    assert same(whole, run(cfg, resume=True))
    assert not same(whole, run(settings(tmp_path / "other", SEED=4)))


def test_the_task_is_asked_in_its_turn(tmp_path: Path) -> None:
    """Weights, then ``prepare``, then the loader; a finished run prepares and loads no data."""
    calls: list[str] = []

    class Checkpointer(ModelCheckpointer):
        def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
            calls.append("weights")
            return super().resume_or_load(path, resume=resume)

    def build_loader(cfg: CfgNode, model: Fit, start: int) -> Any:
        calls.append(f"loader {start} {cfg.SEED}")
        return loader(cfg, model, start)

    def evaluate() -> dict[str, float]:
        calls.append("evaluate")
        return {"score": 1.5}

    parts = {
        "checkpointer": Checkpointer,
        "build_loader": build_loader,
        "prepare": lambda cfg, model: calls.append("prepare"),
        "evaluate": evaluate,
    }
    cfg = settings(tmp_path, **{"TEST.EVAL_PERIOD": 4})
    run(cfg, **parts)
    assert calls == ["weights", "prepare", "loader 0 3", "evaluate"]
    assert '"score": 1.5' in (tmp_path / "log.jsonl").read_text()
    calls.clear()
    (tmp_path / "model_last.pth").touch()  # as after a kill in the last step
    run(cfg, resume=True, **parts)
    assert calls == ["weights", "prepare"]
    assert not (tmp_path / "model_last.pth").exists()


def test_a_run_that_may_not_start(tmp_path: Path) -> None:
    cfg = settings(tmp_path)
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS is empty and .* holds no run"):
        weights_to_evaluate(cfg)
    run(cfg)
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        run(cfg)


def test_a_loss_that_is_no_number_names_the_files(tmp_path: Path) -> None:
    def broken(cfg: CfgNode, model: Fit, start: int) -> Any:
        for number, batch in enumerate(loader(cfg, model, start)):
            if number == 2:
                batch[0]["y"] = torch.tensor([float("nan")])
            yield batch

    with pytest.raises(UserError, match=r"not finite at iteration 2 \(loss_fit nan\)"):
        run(settings(tmp_path), build_loader=broken)
    document = json.loads((tmp_path / "not_finite_rank0.json").read_text())
    assert [image["file_name"].endswith(".png") for image in document["images"]] == [True, True]


def test_a_last_step_that_diverges_leaves_the_earlier_state(tmp_path: Path) -> None:
    def diverging(cfg: CfgNode, model: Fit) -> Any:
        optimizer = build_segmentation_optimizer(cfg, model)
        done: list[int] = []

        def diverge(*arguments: Any) -> None:
            done.append(len(done))
            if len(done) == 8:
                model.head.bias.data.fill_(float("inf"))

        optimizer.register_step_post_hook(diverge)
        return optimizer

    with pytest.raises(UserError, match=r"head.bias holds NaN or infinity.* the last checkpoint stands; lower SOLVER"):
        run(settings(tmp_path), build_optimizer=diverging)
    assert (tmp_path / "last_checkpoint").read_text() == "model_last.pth"
    assert torch.load(tmp_path / "model_last.pth", weights_only=True)["iteration"] == 5
    assert not (tmp_path / "model_final.pth").exists()


def test_a_model_that_notices_divergence_itself_is_one_line(tmp_path: Path) -> None:
    class Proposals(Fit):
        def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")

    with pytest.raises(UserError, match=r"a loss is not finite at iteration 0 \(forward nan\); the batch's files"):
        train(TASK, settings(tmp_path), Proposals())
    assert (tmp_path / "not_finite_rank0.json").is_file()


def test_more_iterations_under_a_schedule_that_allows_them(tmp_path: Path) -> None:
    """Steps are at iterations of their own, a polynomial goes over all of them."""
    steps = {"SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR", "SOLVER.STEPS": (4,)}
    whole = run(settings(tmp_path / "whole", **steps))
    run(settings(tmp_path / "run", **steps, **{"SOLVER.MAX_ITER": 5}))
    assert same(whole, run(settings(tmp_path / "run", **steps), resume=True))
    run(settings(tmp_path / "poly", **{"SOLVER.MAX_ITER": 5}))
    with pytest.raises(UserError, match=r"SOLVER.MAX_ITER was 5, now 8"):
        run(settings(tmp_path / "poly"), resume=True)


def test_checkpoints_of_before_there_was_an_identity_resume(tmp_path: Path) -> None:
    cfg = settings(tmp_path)
    whole = run(cfg)
    saved = {key: value for key, value in whole.items() if key not in ("training_data", "processes")}
    assert len(whole) - len(saved) == 2
    torch.save(saved, tmp_path / "model_final.pth")
    assert same(whole, run(cfg, resume=True))


def test_a_run_goes_on_with_as_many_processes_as_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The photos that each process draws, and with them the weights, depend on their number."""
    cfg = settings(tmp_path, **{"SOLVER.MAX_ITER": 5})

    def first_photos() -> list[float]:
        return [float(example["x"]) for batch in itertools.islice(loader(cfg, Fit(), 0), 8) for example in batch][:8]

    alone = first_photos()
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    assert first_photos() != alone
    monkeypatch.undo()
    saved = run(cfg)
    assert saved["processes"] == 1
    torch.save({**saved, "processes": 2}, tmp_path / "model_final.pth")
    before = (tmp_path / "model_final.pth").read_bytes()
    with pytest.raises(UserError, match=r"other settings \(processes; processes was 2, now 1\)"):
        run(cfg, resume=True)
    assert (tmp_path / "model_final.pth").read_bytes() == before


def test_the_work_of_a_run_is_alone_in_its_folder(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        for work in (whole_run.train, whole_run.evaluate, whole_run.score):
            with pytest.raises(UserError, match=f"another run is in .* process {process.pid} on"):
                work(TASK, settings(tmp_path))


def test_damaged_lines_of_a_log_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "log.jsonl"
    whole = [json.dumps({"iteration": step, "loss": 1.0}) for step in range(6)]
    log.write_bytes("\n".join([*whole[:2], "[]", '{"loss": 1}', *whole[2:], '{"iterat']).encode() + b"\xff")
    with caplog.at_level(logging.WARNING, logger="pomp_engine"):
        cut_log(tmp_path, 4)
    assert log.read_text().splitlines() == whole[:4]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"line {number} of {log} is damaged and is left out" for number in (3, 4)]
