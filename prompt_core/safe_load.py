"""Reading other people's checkpoints without running their code."""

from __future__ import annotations

import pickle
import types
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prompt_core.errors import UserError

# What a checkpoint of tensors needs to be rebuilt; any other global becomes an inert placeholder.
_ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.serialization", "_get_layout"),
}


class Placeholder:
    """Stands for an object of a class that is not allowed; accepts any state and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        return self

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = (module, name) in _ALLOWED or (module == "torch" and name.endswith("Storage") and name.isalpha())
        return super().find_class(module, name) if allowed else Placeholder


def load_restricted(path: str | Path) -> Any:
    """Load a torch checkpoint on the CPU with ``weights_only=True``; where it holds more, the rest stays inert.

    Published training checkpoints hold scheduler objects next to the tensors, which ``weights_only`` refuses. They are
    then read with an unpickler that rebuilds tensors and puts :class:`Placeholder` instead of everything else.

    Raises:
        UserError: when the file is absent, truncated, or not a torch checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint file at {path}")
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            module: Any = types.SimpleNamespace(
                Unpickler=_RestrictedUnpickler,
                load=lambda file, **options: _RestrictedUnpickler(file, **options).load(),
                UnpicklingError=pickle.UnpicklingError,
                __name__="prompt_core.safe_load",
            )
            return torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)
    except Exception as error:  # damaged archives raise whatever their bytes happen to trigger
        raise UserError(
            f"{path} could not be read as a checkpoint ({type(error).__name__}); it may be truncated"
        ) from error


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Weights of a model: safetensors, a ``weights_only`` pickle, or the weights of a TorchScript archive.

    Raises:
        UserError: when the file is absent, truncated, or holds something else.
    """
    if not file.is_file():
        raise UserError(f"no weights file at {file}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        elif _is_torchscript(file):
            archive = torch.jit.load(str(file), map_location="cpu").state_dict()
            # Tracing turns the causal mask, which every model makes itself, into a stored buffer.
            state = {key: value for key, value in archive.items() if key.split(".")[-1] != "attn_mask"}
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own exception types for a damaged file
        raise UserError(
            f"{file} could not be read as a state dict ({first_sentence(error)}); "
            "it may be truncated or hold more than tensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file} holds no state dict: a mapping of names to tensors is expected")
    return {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in member for member in archive.namelist())


def first_sentence(error: Exception) -> str:
    """The first sentence of a library's message, on one line."""
    text = " ".join(str(error).split()).split(". ")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
