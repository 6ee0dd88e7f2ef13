"""The pre-training tool as users run it: files, kill and resume, Ctrl-C, and one line for each mistake."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from prompt_core import SoftPrompt
from prompt_core.safe_load import load_restricted

Call = Callable[..., tuple[int, str, str]]


def settings(model: tuple[Path, Path], pictures: Path, **more: object) -> list[str]:
    chosen = {
        "MODEL.NAME": model[0],
        "MODEL.PRETRAINED": model[1],
        "DATA.TRAIN": f"folder:{pictures}",
        "DATA.CACHE": "cache",
        "AUGMENT.STORED_VIEWS": 2,
        "AUGMENT.VIEWS": 2,
        "PROMPT.N_CTX": 3,
        "LOSS.NUM_CLASSES": 3,
        "OPTIM.BATCH": 4,
        "OPTIM.EPOCHS": 3,
        "DEVICE": "cpu",
        **more,
    }
    return [str(part) for pair in chosen.items() for part in pair]


def test_writes_prompt_metrics_log_and_state(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    options = settings(tiny_model, picture_folder)
    code, _, error = call_tool("pretrain_prompt", "--output", "run", *options)
    assert code == 0, error
    prompt = SoftPrompt.load(tmp_path / "run/prompt.safetensors")
    assert prompt.context.shape == (3, 32)
    assert prompt.metadata["K"] == 3
    assert prompt.metadata["vocabulary"]["size"] == 4
    assert prompt.metadata["training"]["learning_rate"] == 0.002
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert metrics["train/loss"] == lines[-1]["loss"]
    assert metrics["_run"]["images"] == 24
    assert list((tmp_path / "run/tensorboard").iterdir())
    code, _, error = call_tool("pretrain_prompt", "--output", "run", *options)
    assert (code, "--resume" in error) == (2, True)
    # A second run finds the features and gives the same prompt.
    assert call_tool("pretrain_prompt", "--output", "twin", *options)[0] == 0
    for name in ("prompt.safetensors", "method.safetensors"):
        assert (tmp_path / "twin" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


LONG = {"OPTIM.EPOCHS": 120, "LOG.CHECKPOINT_MINUTES": 0.0005, "LOG.TENSORBOARD": False}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes that are started here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stopped_run_resumes_to_the_same_prompt(
    call_tool: Call,
    start_tool: Callable[..., subprocess.Popen[str]],
    tiny_model: tuple[Path, Path],
    picture_folder: Path,
    tmp_path: Path,
    one_thread: None,
    how: signal.Signals,
) -> None:
    options = settings(tiny_model, picture_folder, **LONG)
    process = start_tool("pretrain_prompt", "--output", "cut", *options, cwd=tmp_path)
    log = tmp_path / "cut/log.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and log.read_text().count("\n") >= 20:
            break
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be stopped"
    os.kill(process.pid, how)
    out, error = process.communicate(timeout=60)
    assert "Traceback" not in error
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in out
    assert not (tmp_path / "cut/prompt.safetensors").exists()
    for arguments in (["cut", "--resume"], ["whole"]):
        code, _, error = call_tool("pretrain_prompt", "--output", *arguments, *options)
        assert code == 0, error
    first, second = (SoftPrompt.load(tmp_path / name / "prompt.safetensors") for name in ("whole", "cut"))
    assert torch.equal(first.context, second.context)
    assert (tmp_path / "whole/log.jsonl").read_text() == log.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MODEL.NAME": "ViT-B-61"}, "unknown architecture 'ViT-B-61'; nearest: 'ViT-B-16'"),
        ({"LOSS.NUMCLASSES": 5}, "unknown key 'LOSS.NUMCLASSES' in the command line; nearest: 'LOSS.NUM_CLASSES'"),
        ({"OPTIM.EPOCHS": "many"}, "OPTIM.EPOCHS is 'many'"),
        ({"LOSS.CORRECTION": "log2"}, "LOSS.CORRECTION is 'log2'; expected log10, ln, a number or none"),
        ({"DATA.TRAIN": "folder:nowhere"}, "nowhere"),
        ({"DATA.TRAIN": "tiny_imagenet:."}, "wnids.txt"),
        ({"DATA.VOCABULARY": "imagenet22k"}, "nearest: 'imagenet21k'"),
        ({"DATA.CLASSES": "missing.txt"}, "class list missing.txt does not exist"),
        ({"LOSS.REJECT": "none"}, "LOSS.REJECT is 'none'; expected one of name, id"),
        ({"PROMPT.POSITION": "last"}, "unknown class token position 'last'"),
        ({"MODEL.PRETRAINED": "broken.safetensors"}, "truncated"),
        ({"DEVICE": "tpu9"}, "DEVICE is 'tpu9'"),
    ],
)
def test_mistakes_get_one_line_and_code_2(
    call_tool: Call,
    tiny_model: tuple[Path, Path],
    picture_folder: Path,
    tmp_path: Path,
    change: dict[str, object],
    message: str,
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(tiny_model[1].read_bytes()[:5000])
    code, _, error = call_tool("pretrain_prompt", "--output", "run", *settings(tiny_model, picture_folder, **change))
    assert code == 2, error
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "run/prompt.safetensors").exists()


def test_unwritable_output_and_unknown_option(call_tool: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, error = call_tool("pretrain_prompt", "--output", "file/run")
    assert code == 2
    assert "cannot write" in error
    code, _, error = call_tool("pretrain_prompt", "--outputs", "run", "--resum")
    assert code == 2
    assert len(error.strip().splitlines()) == 1


def test_unreadable_photos_are_listed_and_too_many_stop_the_run(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(picture_folder, pictures)
    shutil.rmtree(pictures / "val")
    for index in range(100):
        shutil.copy(pictures / "train/red_star/0.png", pictures / f"train/red_star/copy{index}.png")
    (pictures / "train/blue_disc/1.png").write_bytes(b"no picture")
    options = settings(tiny_model, pictures, **{"DATA.SHOTS": -1, "OPTIM.EPOCHS": 1})
    code, _, error = call_tool("pretrain_prompt", "--output", "one", *options)
    assert code == 0, error
    assert json.loads((tmp_path / "one/metrics.json").read_text())["_run"]["unreadable"] == ["blue_disc/1.png"]
    assert (
        "warning: OPTIM.EPOCHS is 1 and OPTIM.WARMUP_EPOCHS 1: the whole run is warm-up and never learns at OPTIM.LR "
        "0.002; set OPTIM.WARMUP_EPOCHS below 1\n"
    ) in error
    (pictures / "train/blue_disc/2.png").write_bytes(b"no picture")
    code, _, error = call_tool("pretrain_prompt", "--output", "two", *options, "OPTIM.WARMUP_EPOCHS", "0")
    assert "warning:" not in error
    assert code == 2
    assert "2 of 124" in error


def test_a_resumed_run_is_the_same_run(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    """Other pictures of the same names, another augmentation, rate or seed are refused; what changes no result goes."""
    first = shutil.copytree(picture_folder, tmp_path / "first")
    options = settings(tiny_model, first)
    assert call_tool("pretrain_prompt", "--output", "run", *options)[0] == 0
    state = tmp_path / "run/state.pt"
    before = state.read_bytes()
    other = shutil.copytree(picture_folder, tmp_path / "other")
    picture = other / "train/old_oak/0.png"
    picture.write_bytes(picture.read_bytes() + b" ")
    for key, now, words in (
        ("DATA.TRAIN", f"folder:{other}", "(training_data; training_data was "),
        ("AUGMENT.SCALE", "(0.5,1.0)", "(AUGMENT.SCALE; AUGMENT.SCALE was [0.08, 1.0], now [0.5, 1.0])"),
        ("OPTIM.LR", "0.5", "(OPTIM.LR; OPTIM.LR was 0.002, now 0.5)"),
        ("SEED", "7", "(SEED; SEED was 42, now 7)"),
    ):
        code, _, error = call_tool("pretrain_prompt", "--output", "run", "--resume", *options, key, now)
        assert code == 2
        assert words in error
    moved = shutil.copytree(picture_folder, tmp_path / "moved")
    changed = ["DATA.TRAIN", f"folder:{moved}", "DATA.WORKERS", "1", "LOG.TENSORBOARD", "False"]
    code, _, error = call_tool("pretrain_prompt", "--output", "run", "--resume", *options, *changed)
    assert (code, state.read_bytes() == before) == (0, True), error
    saved = load_restricted(state)
    del saved["identity"]  # as states were before
    torch.save(saved, state)
    log = tmp_path / "run/log.jsonl"
    lines = log.read_text()
    log.unlink()  # as after a kill between the state and its log
    assert call_tool("pretrain_prompt", "--output", "run", "--resume", *options)[0] == 0
    assert log.read_text() == lines


def test_a_last_step_that_diverges_writes_nothing(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    """The loss of the only step is finite, what it makes of the prompt is not."""

    def diverge(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        optimizer.param_groups[0]["params"][0].data.fill_(float("inf"))

    options = settings(tiny_model, picture_folder, **{"OPTIM.EPOCHS": 1, "OPTIM.BATCH": 24})
    hook = register_optimizer_step_post_hook(diverge)
    try:
        code, _, error = call_tool("pretrain_prompt", "--output", "run", *options)
    finally:
        hook.remove()
    assert code == 2, error
    assert "training diverged: context holds NaN or infinity, so nothing was written; lower OPTIM.LR" in error
    assert not {path.suffix for path in (tmp_path / "run").iterdir()} & {".safetensors", ".pt", ".json"}


def test_a_training_without_memory_ends_in_one_line_and_goes_on(
    call_tool: Call,
    tiny_model: tuple[Path, Path],
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
) -> None:
    options = settings(tiny_model, picture_folder, **{"LOG.TENSORBOARD": False})
    assert call_tool("pretrain_prompt", "--output", "whole", *options)[0] == 0
    step, left = torch.optim.SGD.step, iter(range(8))

    def no_memory(*arguments: Any, **more: Any) -> Any:
        if next(left, None) is None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 48000 bytes. Code 12")
        return step(*arguments, **more)

    with monkeypatch.context() as changed:
        changed.setattr(torch.optim.SGD, "step", no_memory)
        code, _, error = call_tool("pretrain_prompt", "--output", "run", *options)
    assert code == 2
    assert error.strip().splitlines()[-1].startswith("error: out of memory (RuntimeError: DefaultCPUAllocator: can't")
    assert "Traceback" not in error
    assert not (tmp_path / "run/prompt.safetensors").exists()
    assert call_tool("pretrain_prompt", "--output", "run", "--resume", *options)[0] == 0
    prompts = [(tmp_path / name / "prompt.safetensors").read_bytes() for name in ("run", "whole")]
    assert prompts[0] == prompts[1]
