"""Pre-training and evaluation under torchrun, as users start them: results, files, kills, and one line for each end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prompt_core import SoftPrompt

from ..support.tools import ENVIRONMENT, ROOT
from .test_pretrain_prompt import settings

pytestmark = pytest.mark.slow
Call = Callable[..., tuple[int, str, str]]
QUICK = {"LOG.TENSORBOARD": False}


def start(tool: str, ranks: int, *arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, "-W", "ignore", *launcher, str(ROOT / f"tools/{tool}.py"), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, text=True, **pipes)


def run(tool: str, ranks: int, *arguments: str | Path, cwd: Path) -> tuple[int, str, str]:
    process = start(tool, ranks, *arguments, cwd=cwd)
    out, error = process.communicate(timeout=280)
    return process.returncode, out, error


def ours(error: str) -> list[str]:
    """The toolkit's own lines among torchrun's."""
    return [line for line in error.splitlines() if line.startswith(("error: ", "stopped by", "warning: "))]


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Processes that torchrun has started, by their rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    of_rank = {}
    for child in children:
        for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"RANK="):
                of_rank[int(entry[5:])] = int(child)
    return [of_rank[rank] for rank in sorted(of_rank)]


def wait_for(log: Path, epochs: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and log.read_text().count("\n") >= epochs:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate(timeout=10))


@pytest.mark.parametrize(
    "change", [{}, {"LOSS.NUM_CLASSES": 0}, {"METHOD.NAME": "vpt", "SELECT.ON": "held_out", "DATA.SHOTS": 4}]
)
def test_the_same_prompt_files_and_numbers(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    options = settings(tiny_model, picture_folder, **change)
    code, _, error = call_tool("pretrain_prompt", "--output", "alone", *options)
    assert code == 0, error
    options[options.index("cache")] = "cache of ranks"
    code, out, error = run("pretrain_prompt", 3, "--output", "ranks", *options, cwd=tmp_path)
    assert code == 0, error
    assert out.count("written to") == 1
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert sorted(path.name for path in (tmp_path / "ranks").iterdir()) == names
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("alone", "ranks"))
    assert second["train/loss"] == pytest.approx(first["train/loss"], rel=1e-4)
    assert second["train/accuracy"] == first["train/accuracy"]
    if "METHOD.NAME" not in change:
        contexts = [SoftPrompt.load(tmp_path / name / "prompt.safetensors").context for name in ("alone", "ranks")]
        torch.testing.assert_close(*contexts, atol=1e-5, rtol=1e-4)
    entries = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("cache", "cache of ranks")]
    assert entries[0] == entries[1]
    for entry in entries[0]:
        features = [(tmp_path / name / entry / "features.npy").read_bytes() for name in ("cache", "cache of ranks")]
        assert features[0] == features[1]


@pytest.mark.parametrize("dies", [0, 1])
def test_a_killed_rank_ends_the_job_with_a_line_and_another_number_goes_on(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path, dies: int
) -> None:
    more = {"OPTIM.EPOCHS": 120, "LOG.CHECKPOINT_MINUTES": 0.0005}
    options = settings(tiny_model, picture_folder, **QUICK, **more)
    process = start("pretrain_prompt", 2, "--output", "cut", *options, cwd=tmp_path)
    wait_for(tmp_path / "cut/log.jsonl", 20, process)
    os.kill(workers(process)[dies], signal.SIGKILL)
    killed = time.monotonic()
    _, error = process.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert process.returncode != 0
    assert len(ours(error)) == 1, error
    assert "--resume" in ours(error)[0]
    assert not (tmp_path / "cut/prompt.safetensors").exists()
    code, _, error = run("pretrain_prompt", 3, "--output", "cut", "--resume", *options, cwd=tmp_path)
    assert code == 0, error
    code, _, error = call_tool("pretrain_prompt", "--output", "whole", *options)
    assert code == 0, error
    first, second = (SoftPrompt.load(tmp_path / name / "prompt.safetensors") for name in ("whole", "cut"))
    torch.testing.assert_close(first.context, second.context, atol=1e-4, rtol=1e-3)
    assert len((tmp_path / "cut/log.jsonl").read_text().splitlines()) == 120


def test_a_rank_that_hangs_is_not_waited_for_without_end(
    tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    options = settings(tiny_model, picture_folder, **QUICK, **{"OPTIM.EPOCHS": 2000, "RANKS.TIMEOUT_MINUTES": 0.1})
    process = start("pretrain_prompt", 2, "--output", "run", *options, cwd=tmp_path)
    wait_for(tmp_path / "run/log.jsonl", 5, process)
    hanging = workers(process)[1]
    os.kill(hanging, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        _, error = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.kill(hanging, signal.SIGCONT)
    assert time.monotonic() - stopped < 60
    assert len(ours(error)) == 1, error
    assert "gave no answer in RANKS.TIMEOUT_MINUTES" in ours(error)[0]


def test_sigterm_saves_at_one_step(tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path) -> None:
    options = settings(tiny_model, picture_folder, **QUICK, **{"OPTIM.EPOCHS": 2000})
    process = start("pretrain_prompt", 2, "--output", "run", *options, cwd=tmp_path)
    wait_for(tmp_path / "run/log.jsonl", 5, process)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=60)
    assert out.count("continue with --resume") == 1
    assert ours(error) == []
    assert (tmp_path / "run/state.pt").exists()
    assert not (tmp_path / "run/.running").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"OPTIM.EPOCHS": "many"}, "OPTIM.EPOCHS is 'many'"),
        ({"DATA.TRAIN": "folder:nowhere"}, "nowhere"),
        ({"METHOD.NAME": "logistic_regression"}, "is learned at once, by one process, and 2 were started; start one"),
    ],
)
def test_mistakes_get_one_line(
    tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    options = settings(tiny_model, picture_folder, **change)
    code, _, error = run("pretrain_prompt", 2, "--output", "run", *options, cwd=tmp_path)
    assert code != 0
    assert len(ours(error)) == 1, error
    assert message in ours(error)[0]


def test_evaluation_has_the_totals_of_one_process(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    model = ["--clip", str(tiny_model[0]), "--pretrained", str(tiny_model[1]), "DEVICE", "cpu"]
    scored = ["--datasets", f"folder:{picture_folder}", "--classes", "base,novel", "--template", "a photo of a {}."]
    code, _, error = call_tool("evaluate_prompt", *scored, "--output", "alone", *model, "DATA.CACHE", "cache")
    assert code == 0, error
    code, out, error = run(
        "evaluate_prompt", 3, *scored, "--output", "ranks", *model, "DATA.CACHE", "other cache", cwd=tmp_path
    )
    assert code == 0, error
    assert out.count("numbers written to") == 1
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("alone", "ranks"))
    numbers = {key: value for key, value in first.items() if not key.startswith("_")}
    assert numbers
    assert {key: second[key] for key in numbers} == numbers
    assert first["_protocol"] == second["_protocol"]
    files = {
        path.relative_to(tmp_path / "alone"): path.read_bytes() for path in (tmp_path / "alone").rglob("per_class.json")
    }
    assert files
    assert all((tmp_path / "ranks" / name).read_bytes() == content for name, content in files.items())
