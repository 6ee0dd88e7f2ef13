"""Reading other people's checkpoints without running their code."""

from __future__ import annotations

import pickle
import types
from pathlib import Path
from typing import Any

import torch

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
    """Stands for an object of a class that is not allowed; takes any state and does nothing."""

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

    Published training checkpoints carry scheduler objects beside the tensors, which ``weights_only`` refuses. They
    are then read with an unpickler that rebuilds tensors and puts :class:`Placeholder` in the place of all else.

    Raises:
        UserError: when the file is absent, truncated, or no torch checkpoint.
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
