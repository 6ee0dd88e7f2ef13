"""Checkpoints of strangers: tensors come back, code does not run."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import re
import subprocess
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prompt_core import SoftPrompt, UserError
from prompt_core.safe_load import Placeholder, load_restricted, read_state_dict, read_torchscript

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


class WritesWhenLoaded(torch.nn.Module):
    """A scripted module whose ``__setstate__`` creates a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.training = path, True
        self.text_projection = torch.nn.Parameter(TENSOR.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.text_projection

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return (self.text_projection, self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        self.path, self.training = state[1], state[2]
        self.text_projection = state[0] + torch.from_file(self.path, True, 12).reshape(3, 4)


class Around(torch.nn.Module):
    """Plain weights next to a part that writes."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.plain, self.part = torch.nn.Linear(4, 3), WritesWhenLoaded(path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.plain(x) + self.part(x)


def save_script(module: torch.nn.Module, path: Path) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript
        scripted = torch.jit.script(module)
        torch.jit.save(scripted, path)
    return scripted


def load_script(path: Path) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(path)


def test_code_of_torchscript_archives_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    save_script(WritesWhenLoaded(str(marker)), tmp_path / "alone.pt")
    around = save_script(Around(str(marker)), tmp_path / "around.pt")
    with pytest.raises(UserError, match=r"alone\.pt holds no state dict"):
        read_state_dict(tmp_path / "alone.pt")
    state = read_state_dict(tmp_path / "around.pt")
    assert sorted(state) == ["plain.bias", "plain.weight"]
    assert torch.equal(state["plain.weight"], around.plain.weight)
    for file in ("alone.pt", "around.pt"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(UserError, match="could not be read as a checkpoint"):
                load_restricted(tmp_path / file)
    assert not marker.exists()
    load_script(tmp_path / "alone.pt")
    assert marker.exists(), "torch's own loader runs the code, else this test could not fail"


class Varied(torch.nn.Module):
    """Everything that a state dict of a TorchScript archive may hold, and what it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(TENSOR.half())
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("mask", torch.tensor([True, False]), persistent=False)
        self.register_buffer("transposed", TENSOR.T)
        storage = torch.arange(12.0)
        self.register_buffer("head", storage[:4])
        self.register_buffer("every_third", storage[1::3])
        self.register_buffer("nothing", torch.empty(0, 3, dtype=torch.float64))
        self.first = torch.nn.Linear(4, 3).to(torch.bfloat16)
        self.second = torch.nn.ModuleList([torch.nn.Linear(4, 3), torch.nn.Linear(3, 3)])
        self.no_parameter, self.numbers = torch.ones(2), [1, 2]
        self.first.bias = self.second[1].bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.no_parameter[0] + self.numbers[0]


def test_torchscript_archives_give_what_torchs_loader_gives(tmp_path: Path) -> None:
    save_script(Varied(), tmp_path / "a.pt")
    expected, ours = load_script(tmp_path / "a.pt").state_dict(), read_torchscript(tmp_path / "a.pt")
    assert "no_parameter" not in expected
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(ours[key], value), key
        assert (ours[key].dtype, ours[key].stride()) == (value.dtype, value.stride()), key
        assert ours[key].storage_offset() == value.storage_offset(), key
    assert ours["transposed"].stride() == (1, 4)
    assert ours["head"].untyped_storage().data_ptr() == ours["every_third"].untyped_storage().data_ptr()


def test_damaged_torchscript_archives(tmp_path: Path) -> None:
    save_script(torch.nn.Linear(40, 30), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changes: dict[str, dict[str, bytes | None]] = {
        "no storage": {"a/data/0": None},
        "short storage": {"a/data/0": members["a/data/0"][:-4]},
        "no pickle": {"a/data.pkl": None},
        "half a pickle": {"a/data.pkl": members["a/data.pkl"][:50]},
        "a larger view": {"a/data.pkl": members["a/data.pkl"].replace(b"K(K", b"K)K")},
        "other byte order": {"a/byteorder": b"big"},
    }
    for what, changed in changes.items():
        with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
            for name, content in {**members, **changed}.items():
                if content is not None:
                    archive.writestr(name, content)
        with pytest.raises(UserError, match=r"b\.pt could not be read as a state dict") as caught:
            read_state_dict(tmp_path / "b.pt")
        assert "\n" not in str(caught.value), what


def test_no_code_of_an_archive_is_ever_compiled() -> None:
    root = Path(__file__).resolve().parents[2]
    packages = ("prompt_core", "pomp_engine", "pomp_det", "pomp_seg", "pomp_lab", "tools", "datasets")
    files = [path for package in packages for path in (root / package).rglob("*.py")]
    assert len(files) > 150
    compiles = re.compile(r"jit\.load\(|jit import .*\bload\b|load_openai_model")
    assert [str(path) for path in files if compiles.search(path.read_text(encoding="utf-8"))] == []
