"""Pickles of weights, as converters for Detectron2 write them, and pickles that want to run something."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("detectron2")

from pomp_engine.backbones.swin import SwinStages
from pomp_engine.backbones.timm_resnet import TimmResNet
from pomp_engine.checkpoint import ModelCheckpointer
from pomp_engine.weight_pickles import read_pickle
from prompt_core import UserError

from ..support.backbone_names import Shapes, numbered_state, resnet, swin

HEADS = (1, 2, 4, 8)


def detic_converter(file: Path) -> Path:
    """What Detic's ``tools/convert-thirdparty-pretrained-model-to-d2.py`` makes of a ``.pth``."""
    content = torch.load(file, weights_only=True)
    content = content.get("model", content)
    content = content.get("state_dict", content)
    converted = file.with_suffix(".pkl")
    converted.write_bytes(pickle.dumps({"model": content, "__author__": "third_party", "matching_heuristics": True}))
    return converted


class Detector(torch.nn.Module):
    def __init__(self, bottom_up: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = torch.nn.ModuleDict({"bottom_up": bottom_up})
        self.roi_heads = torch.nn.Linear(2, 2)


def miil_resnet50() -> tuple[str, Shapes, torch.nn.Module, str]:
    """MIIL's file but for the number of its classes, 11,221."""
    return "state_dict", resnet((3, 4, 6, 3), bottleneck=True, classes=11), TimmResNet("resnet50_in21k"), "base."


def swin_22k() -> tuple[str, Shapes, torch.nn.Module, str]:
    """Swin-B's depths, and so its names, in an eighth of its width."""
    depths = (2, 2, 18, 2)
    stages = SwinStages(embed_dim=16, depths=depths, num_heads=HEADS, out_indices=(1, 2, 3))
    return "model", swin(depths, 16, HEADS, classes=21841), stages, ""


@pytest.mark.parametrize("source", [miil_resnet50, swin_22k])
def test_every_tensor_of_a_published_backbone_arrives(
    tmp_path: Path, source: Callable[[], tuple[str, Shapes, torch.nn.Module, str]]
) -> None:
    key, shapes, stages, prefix = source()
    state, file = numbered_state(shapes), tmp_path / "published.pth"
    torch.save({key: OrderedDict(state)}, file)
    model = Detector(stages)
    theirs = {prefix + name: value for name, value in state.items()}
    # The published Swin has one norm at its end, the detector's has one for each feature.
    own_only = {name for name in stages.state_dict() if name.startswith(("norm1.", "norm2.", "norm3."))}
    assert stages.state_dict().keys() - own_only <= theirs.keys()
    unused = {name.removeprefix(prefix).split(".")[0] for name in theirs.keys() - stages.state_dict().keys()}
    assert unused == {"fc"} if prefix else {"norm", "head", "layers"}  # of the layers only masks, which it makes itself
    for path in (file, detic_converter(file)):
        before = {name: value.zero_().clone() for name, value in model.state_dict().items()}
        ModelCheckpointer(model).load(str(path))
        for name, value in stages.state_dict().items():
            expected = theirs.get(name, torch.zeros_like(value))
            assert torch.equal(value, expected), name
        assert torch.equal(model.roi_heads.weight, before["roi_heads.weight"])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_kinds_of_tensors_and_arrays(tmp_path: Path, protocol: int) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    state = OrderedDict(
        a=table,
        part=table[1:, ::2],
        turned=table.T,
        half=table.half(),
        bfloat=table.bfloat16(),
        whole=torch.tensor([3, 4]),
        one=torch.tensor(7.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(table),
        array=table.numpy().astype(np.float16),
    )
    state._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]  # as Module.state_dict() has it
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "somebody"}, protocol=protocol))
    loaded = read_pickle(str(path))["model"]
    assert list(loaded) == list(state)
    for key, value in state.items():
        assert torch.equal(torch.as_tensor(loaded[key]), torch.as_tensor(value).detach()), key
        assert torch.as_tensor(loaded[key]).dtype == torch.as_tensor(value).dtype


class Calls:
    """A pickle of it calls ``function(*arguments)`` when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.what = function, arguments

    def __reduce__(self) -> Any:
        return self.what


def nested(content: bytes) -> Calls:
    return Calls(torch.storage._load_from_bytes, content)


def saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    TWO_NUMBERS = saved(torch.ones(2).storage(), _use_new_zipfile_serialization=False)
TOUCH = Calls(os.system, "touch hostile_was_here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TOUCH, r"asks for posix.system; only arrays and tensors"),
        (nested(pickle.dumps(TOUCH)), "could not be read"),
        (nested(saved(TOUCH)), "could not be read"),
        (nested(saved(TOUCH, _use_new_zipfile_serialization=False)), "could not be read"),
        (nested(saved({"a": 1})), "numbers are a dict; a torch storage is expected"),
        (Calls(torch._utils._rebuild_tensor_v2, "no storage", 0, (1,), (1,), False, None), "has no torch storage"),
        (Calls(torch.load, "other.pth"), "asks for torch.serialization.load"),
        (Calls(torch._utils._rebuild_tensor_v2, nested(TWO_NUMBERS), 1, (2,), (1,), False, None), "could not be read"),
        (Calls(eval, "1"), "asks for (builtins|__builtin__).eval"),
    ],
)
def test_hostile_pickles_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, pickle.DEFAULT_PROTOCOL):
        document = {"model": {"conv1.weight": torch.ones(1), "a": content}, "__author__": "third_party"}
        Path("hostile.pkl").write_bytes(pickle.dumps(document, protocol=protocol))
        with pytest.raises(UserError, match=f"^weights hostile.pkl.*{message}") as error:
            read_pickle("hostile.pkl")
        assert "\n" not in str(error.value)
    assert [path.name for path in Path().iterdir()] == ["hostile.pkl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "hold a list"),
        ({"model": [1], "__author__": "a"}, "no state dict"),
        ({"model": {"a": 3}, "__author__": "a"}, "'a' is not a tensor"),
        ({"model": {"a": np.array([{}])}, "__author__": "a"}, "'a' is not a tensor"),
        ({"blobs": {}}, "no state dict"),
    ],
)
def test_pickles_of_other_things(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=message):
        read_pickle(str(path))


WHOLE = pickle.dumps({"model": {"a": torch.ones(3), "b": np.ones(2)}, "__author__": "somebody"})


@given(place=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_damaged_byte_gives_weights_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])
    state: dict[str, Any] = {}
    with contextlib.suppress(UserError):
        state = read_pickle(str(path))["model"]
    assert all(isinstance(value, (torch.Tensor, np.ndarray)) for value in state.values())


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.pkl")
    with pytest.raises(UserError, match=r"weights\.pkl: it is a pipe or a device; a file is expected"):
        read_pickle(str(tmp_path / "weights.pkl"))
