"""Checkpoints of strangers: tensors come back, code does not run."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prompt_core import SoftPrompt, UserError
from prompt_core.safe_load import Placeholder, load_restricted

TENSOR = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> Any:
        return self.parts


def attacks(marker: Path) -> dict[str, Any]:
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "exec": Call(builtins.exec, code),
        "eval": Call(builtins.eval, f"__import__('os').system('touch {marker}')"),
        "popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "open": Call(open, str(marker), "w"),
        "nested pickle": Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {marker}"))),
        "torch.load": Call(torch.load, io.BytesIO(), "cpu"),
        "load_from_bytes": Call(
            torch.storage._load_from_bytes,  # type: ignore[no-untyped-call]
            pickle.dumps(Call(os.system, f"touch {marker}")),
        ),
    }


@pytest.mark.parametrize("kind", sorted(attacks(Path("x"))))
@pytest.mark.parametrize("zipped", [True, False])
def test_calls_are_not_made(tmp_path: Path, kind: str, zipped: bool) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "a.pth.tar"
    checkpoint = {"state_dict": {"ctx": TENSOR}, "scheduler": attacks(marker)[kind]}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    loaded = load_restricted(path)
    assert torch.equal(loaded["state_dict"]["ctx"], TENSOR)
    assert isinstance(loaded["scheduler"], Placeholder)
    assert torch.equal(SoftPrompt.load(path).context, TENSOR)
    assert not marker.exists()


def test_the_attack_works_on_an_unprotected_loader(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    marker = tmp_path / "marker"
    torch.save(attacks(marker)["os.system"], tmp_path / "a.pth.tar")
    torch.load(tmp_path / "a.pth.tar", weights_only=False)
    assert marker.exists()


def test_plain_pickles_are_no_checkpoints_and_do_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "a.pth.tar").write_bytes(pickle.dumps(attacks(marker)["os.system"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match=r"a\.pth\.tar could not be read as a checkpoint"):
            load_restricted(tmp_path / "a.pth.tar")
    assert not marker.exists()


def test_torchscript_is_not_run(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="could not be read as a checkpoint"):
            load_restricted(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_training_checkpoint_holds(tmp_path: Path, zipped: bool) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(TENSOR.clone())], lr=0.1)
    shared = torch.arange(6.0)
    checkpoint = {
        "parameter": torch.nn.Parameter(TENSOR),
        "half": TENSOR.half(),
        "bfloat16": TENSOR.bfloat16(),
        "transposed": TENSOR.T,
        "views": (shared[:3], shared[3:]),
        "ordered": collections.OrderedDict(a=torch.tensor(3), b=[1, "two", None]),
        "optimizer": optimizer.state_dict(),
        # What weights_only refuses:
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, a=[1]),
        "path": Path("a"),
        "dtype": torch.float16,
        "array": np.arange(3),
        "queue": collections.deque([1, 2]),
    }
    torch.save(checkpoint, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pt", weights_only=True)
    loaded = load_restricted(tmp_path / "a.pt")
    for key in ("parameter", "half", "bfloat16", "transposed"):
        assert torch.equal(loaded[key], checkpoint[key]), key  # type: ignore[arg-type]
        assert loaded[key].dtype == checkpoint[key].dtype  # type: ignore[union-attr]
    assert loaded["views"][1].tolist() == [3, 4, 5]
    assert loaded["ordered"]["b"] == [1, "two", None]
    assert loaded["optimizer"]["param_groups"][0]["lr"] == 0.1
    for key in ("scheduler", "counter", "default", "path"):
        assert isinstance(loaded[key], Placeholder), key


def test_tensor_files_take_the_safe_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": TENSOR}, tmp_path / "a.pt")
    monkeypatch.setattr("prompt_core.safe_load._RestrictedUnpickler", None)
    assert torch.equal(load_restricted(str(tmp_path / "a.pt"))["a"], TENSOR)


def test_damaged_files(tmp_path: Path) -> None:
    scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.nn.Parameter(TENSOR)], lr=0.1), 1)
    torch.save({"a": TENSOR, "b": scheduler}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "a.pt").read_bytes()
    for size in (0, 1, 20, len(whole) // 2, len(whole) - 4):
        (tmp_path / "b.pt").write_bytes(whole[:size])
        with pytest.raises(
            UserError, match=r"b\.pt could not be read as a checkpoint .*; it may be truncated"
        ) as caught:
            load_restricted(tmp_path / "b.pt")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no checkpoint file at"):
        load_restricted(tmp_path / "c.pt")
    with pytest.raises(UserError, match="no checkpoint file at"):
        load_restricted(tmp_path)
