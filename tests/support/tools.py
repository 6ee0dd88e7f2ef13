"""A tiny model as files, a tiny picture folder, and a way to run the tools as users do."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from prompt_core.errors import run_command

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    "quick_gelu": True,
}


# The caller's, with one quiet thread: tiny matrices gain nothing from more.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture(scope="session")
def start_tool() -> Callable[..., subprocess.Popen[str]]:
    """Start ``tools/NAME.py`` and leave it running."""

    def start(name: str, *arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, text=True, **pipes)

    return start


@pytest.fixture(scope="session")
def run_tool(start_tool: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a tool to its end, from a folder that is not the repository's."""

    def run(name: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        process = start_tool(name, *arguments, cwd=cwd)
        out, error = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)

    return run


def tool_main(name: str) -> Callable[[], int | None]:
    """The ``main`` of a script such as ``tools/predict``, loaded as a module of its own."""
    path = ROOT / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tool_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    main: Callable[[], int | None] = module.main
    return main


@pytest.fixture
def call_tool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a tool in this process, in ``tmp_path``: its exit code, output and errors; quicker than a new process."""

    def call(name: str, *arguments: str | Path) -> tuple[int, str, str]:
        main = tool_main(f"tools/{name}")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_command(main)
        out, error = capsys.readouterr()
        return int(stop.value.code or 0), out, error

    return call


class _AfterSteps:
    """Says stop when it has been asked as often as there are steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def stop_after(steps: int) -> Callable[[], contextlib.AbstractContextManager[_AfterSteps]]:
    """In the place of ``prompt_core.training.recipe.asked_to_stop``: Ctrl-C after some steps."""
    return lambda: contextlib.nullcontext(_AfterSteps(steps))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(configuration, weights) of a random CLIP."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    torch.manual_seed(0)
    model = open_clip.CLIP(**json.loads(json.dumps(TINY)))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "tiny.safetensors")
    return folder / "tiny.json", folder / "tiny.safetensors"


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 6 random pictures each."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("red_star", "blue_disc", "green_heart", "old_oak"):
            (root / split / name).mkdir(parents=True)
            for index in range(6):
                pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root
