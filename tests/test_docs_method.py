"""docs/add_a_method.md: its method and commands work as they stand, outside the packages."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prompt_core import UserError, load_clip
from prompt_core.config import load_config
from prompt_core.methods.registry import build_method, load_method, method_class

from .support.tools import call_tool, picture_folder, stop_after

__all__ = ["call_tool", "picture_folder"]

PAGE = (Path(__file__).resolve().parent.parent / "docs/add_a_method.md").read_text(encoding="utf-8")
SMALL = ["AUGMENT.STORED_VIEWS", "2", "AUGMENT.VIEWS", "1", "OPTIM.EPOCHS", "2", "OPTIM.BATCH", "8"]
SMALL += ["LOG.TENSORBOARD", "False", "DATA.CACHE", "cache", "DEVICE", "cpu"]
Call = Callable[..., tuple[int, str, str]]


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
    return str(text).replace("\\\n", " ")


@pytest.fixture
def outside(tmp_path: Path, picture_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's module and data."""
    (tmp_path / "my_methods.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "runs/demo_shapes/shapes").mkdir(parents=True)
    (tmp_path / "runs/demo_shapes/shapes/classification").symlink_to(picture_folder)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_commands_of_the_page(outside: Path, call_tool: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    learn, score = [shlex.split(line)[1:] for line in block("bash").splitlines() if not line.startswith("#")]
    code, out, error = call_tool(Path(learn[0]).stem, *learn[1:], *SMALL)
    assert code == 0, error
    assert "method written to runs/adapter/method.safetensors" in out
    code, _, error = call_tool(Path(score[0]).stem, *score[1:], *SMALL)
    assert code == 0, error
    metrics = json.loads((outside / "runs/adapter_scores/metrics.json").read_text())
    assert 0 <= metrics["classification_base_and_novel/harmonic_mean"] <= 100
    clip = load_clip("mini")
    method = load_method(outside / "runs/adapter/method.safetensors", clip)
    assert (method.name, method.options.width, method.options.seed) == ("my_methods:Adapter", 4, 42)
    start = build_method(load_config(None, [word for word in learn[3:] if word != "runs/adapter"]), clip)
    assert not torch.equal(method.down.weight, start.down.weight)  # type: ignore[union-attr]

    # Stopped and resumed, it comes to the same.
    again = ["other" if word == "runs/adapter" else word for word in learn[1:]]
    with monkeypatch.context() as patch:
        patch.setattr("prompt_core.training.recipe.asked_to_stop", stop_after(4))
        assert call_tool("pretrain_prompt", *again, *SMALL)[0] == 130
    code, _, error = call_tool("pretrain_prompt", *again, "--resume", *SMALL)
    assert code == 0, error
    assert load_method(outside / "other/method.safetensors", clip).sha256() == method.sha256()
    code, _, error = call_tool("pretrain_prompt", *again, "--resume", *SMALL, "METHOD.OPTIONS.SHARE", "0.5")
    assert (code, "belongs to a run with other settings (options" in error) == (2, True)


def test_mistakes(outside: Path) -> None:
    clip = load_clip("mini")

    def build(*overrides: str) -> None:
        build_method(load_config(None, ["METHOD.NAME", "my_methods:Adapter", *overrides]), clip)

    with pytest.raises(UserError, match=r"unknown key 'METHOD.OPTIONS.WIDHT'; nearest: 'METHOD.OPTIONS.WIDTH'"):
        build("METHOD.OPTIONS.WIDHT", "4")
    with pytest.raises(UserError, match=r"METHOD.OPTIONS.WIDTH is 'many' in the settings; an int is expected, as 8"):
        build("METHOD.OPTIONS.WIDTH", "many")
    with pytest.raises(UserError, match=r"unknown key 'METHOD.OPTIONS.SEED'"):
        build("METHOD.OPTIONS.SEED", "3")  # it is SEED
    with pytest.raises(UserError, match=r"METHOD.OPTIONS is for methods of other packages; coop has its own options"):
        build_method(load_config(None, ["METHOD.NAME", "coop", "METHOD.OPTIONS.WIDTH", "4"]), clip)
    with pytest.raises(UserError, match=r"module my_methods has no 'Adaptor'; nearest: 'Adapter'"):
        method_class("my_methods:Adaptor")
    with pytest.raises(UserError, match=r"'pathlib:Path', which is not a subclass of prompt_core\.methods\.base\."):
        method_class("pathlib:Path")
