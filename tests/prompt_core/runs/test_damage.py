"""Flipped bits at seeded places of each kind of file that is read back: the same result or one line, never another."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prompt_core import SoftPrompt, UserError
from prompt_core.files import read_safetensors
from prompt_core.safe_load import load_restricted, read_state_dict
from prompt_core.training.artifacts import load_state, save_state
from prompt_core.training.loop import LearningState

FLIPS = 60


def tensors_of(value: Any) -> Any:
    """Comparable: tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: tensors_of(part) for key, part in value.items()}
    return [tensors_of(part) for part in value] if isinstance(value, (list, tuple)) else value


def write_prompt(path: Path) -> None:
    SoftPrompt.random(32, 4).save(path, training={"rate": 0.002, "source": "a, b"}, metrics={"loss": 1.5})


def write_state(path: Path) -> None:
    prompt = SoftPrompt.random(32, 4)
    optimizer = torch.optim.SGD(prompt.parameters(), lr=0.1, momentum=0.9)
    prompt.context.sum().backward()
    optimizer.step()
    state = LearningState(epoch=2, step=3, loss_sum=1.25, optimizer=optimizer.state_dict())
    save_state(path, state, prompt, {"seed": 3}, {"OPTIM.LR": 0.1})


def read_state(path: Path) -> Any:
    prompt = SoftPrompt.random(32, 4)
    return vars(load_state(path, prompt, {"seed": 3}, {"OPTIM.LR": 0.1})) | dict(prompt.state_dict())


def write_checkpoint(path: Path) -> None:
    torch.save({"model": {"a": torch.randn(40), "b": torch.randn(3, 4)}, "iteration": 7}, path)


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("prompt.safetensors", write_prompt, read_safetensors),
        ("state.pt", write_state, read_state),
        ("model_last.pth", write_checkpoint, load_restricted),
        ("weights.pt", lambda path: torch.save({"a": torch.randn(40)}, path), read_state_dict),
    ],
)
def test_a_flipped_bit_is_never_another_result(
    tmp_path: Path, name: str, write: Callable[[Path], None], read: Callable[[Path], Any]
) -> None:
    torch.manual_seed(0)
    path, places = tmp_path / name, random.Random(name)
    write(path)
    whole, expected = path.read_bytes(), tensors_of(read(path))
    refused = 0
    for _ in range(FLIPS):
        damaged = bytearray(whole)
        damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = tensors_of(read(path))
        except UserError as error:
            refused += str(path) in str(error)
        else:
            assert result == expected
    assert refused > FLIPS // 4


def test_the_seal_holds_for_every_bit_and_others_ignore_it(tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    SoftPrompt.random(2, 1).save(path)
    whole = path.read_bytes()
    for place in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="could not be read"):
            read_safetensors(path)
    path.write_bytes(whole)
    assert load_file(path).keys() == {"context"}
    assert "content_sha256" not in SoftPrompt.load(path).metadata


def test_files_without_a_seal_are_read(tmp_path: Path) -> None:
    save_file({"context": torch.ones(2, 3)}, tmp_path / "a.safetensors", {"position": json.dumps("end")})
    assert torch.equal(SoftPrompt.load(tmp_path / "a.safetensors").context, torch.ones(2, 3))


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    for name, order in (("a", 1), ("b", -1)):
        notes = {f"note {number}": np.float32(number) for number in range(20)[::order]}
        SoftPrompt(torch.ones(2, 3)).save(tmp_path / name, **notes)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
