"""Tensors from outside: whatever their files hold, they are read or refused in one line, and nothing of them runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from prompt_core.classifier import TextClassifier
from prompt_core.dassl.checkpoints import read_checkpoint
from prompt_core.files import read_safetensors
from prompt_core.prompt import SoftPrompt
from prompt_core.safe_load import load_restricted, read_state_dict

from ..support import hostile
from ..support.hostile_files import TOUCHED, files_like

PROMPT = SoftPrompt(torch.ones(2, 4), metadata={"K": 3, "vocabulary": {"size": 4}})
CHECKPOINT = {"state_dict": {"ctx": torch.ones(3, 8).half()}, "epoch": 5, "model": {"a.weight": torch.ones(2)}}


def saved(name: str, folder: Path) -> bytes:
    if name == "prompt.safetensors":
        PROMPT.save(folder / name)
    elif name == "classifier.safetensors":
        TextClassifier(torch.eye(2), ["cat", "dog"]).save(folder / name)
    else:
        torch.save(CHECKPOINT, folder / name)
    return (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("prompt.safetensors", (SoftPrompt.load, read_safetensors)),
        ("classifier.safetensors", (TextClassifier.load,)),
        ("model.pth.tar", (read_checkpoint, load_restricted, read_state_dict, SoftPrompt.load)),
    ],
)
def test_any_file_of_tensors_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, readers: tuple[Callable[[Path], Any], ...]
) -> None:
    folder = tmp_path_factory.mktemp("one") / "two/three"
    folder.mkdir(parents=True)
    _, strategy = files_like(name, saved(name, folder))

    @given(content=strategy)
    @settings(max_examples=60, deadline=None)
    def read(content: bytes) -> None:
        (folder / name).write_bytes(content)
        for reader in readers:
            hostile.success_or_one_line(lambda: reader(folder / name))  # noqa: B023 (called at once)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        read()
    assert not (folder.parent.parent / TOUCHED).exists()
    assert [path.name for path in folder.iterdir()] == [name]
