"""Weights in plain pickles, as converters for Detectron2, Detic and MaskFormer write them, read without running them.

Such a file holds arrays, or torch tensors: then each storage is a torch file of its own inside the pickle
(``torch.storage._load_from_bytes``), which could hold anything in its turn.
"""

from __future__ import annotations

import codecs
import collections
import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prompt_core.documents.bounds import check_size
from prompt_core.errors import UserError


def read_pickle(filename: str) -> dict[str, Any]:
    """Backbone weights of Detectron2 and of third parties (``model``, ``__author__``), or of Caffe2 (``blobs``).

    Returns:
        a checkpoint as Detectron2 takes it; ``model`` holds arrays and tensors.

    Raises:
        UserError: when the file is damaged, or holds anything but names with arrays and tensors.
    """
    try:
        check_size(filename)
        with open(filename, "rb") as stream:
            data = _WeightUnpickler(stream, encoding="latin1").load()
    except UserError as error:
        raise UserError(f"weights {filename}: {error}") from error
    except Exception as error:  # damaged pickles raise whatever their bytes happen to trigger
        raise UserError(f"weights {filename} could not be read ({type(error).__name__}); truncated?") from error
    if not isinstance(data, dict):
        raise UserError(f"weights {filename} hold a {type(data).__name__}; a dictionary of arrays is expected")
    if "model" in data and "__author__" in data:
        return {**data, "model": check_state_dict(data["model"], filename)}
    blobs = check_state_dict(data.get("blobs", data), filename)
    arrays = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
    return {"model": arrays, "__author__": "Caffe2", "matching_heuristics": True}


def check_state_dict(state: Any, filename: str) -> dict[str, Any]:
    """Names with arrays and tensors, and nothing else.

    Raises:
        UserError: naming the first that is something else.
    """
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"weights {filename} hold no state dict")
    strays = [key for key, value in state.items() if not isinstance(value, Tensor) and not _is_numeric(value)]
    if strays:
        raise UserError(f"weights {filename}: {strays[0]!r} is not a tensor; a state dict is expected")
    return dict(state)


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def _storage(content: Any) -> torch.TypedStorage:
    """In the place of ``torch.storage._load_from_bytes``, which would unpickle anything."""
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.TypedStorage):
        raise UserError(f"a tensor's numbers are a {type(storage).__name__}; a torch storage is expected")
    return storage


def _tensor(storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *gradient: Any) -> Tensor:
    """In the place of ``torch._utils._rebuild_tensor_v2``, without gradients and hooks."""
    if not isinstance(storage, torch.TypedStorage):
        raise UserError("a tensor has no torch storage")
    numbers = torch.tensor([], dtype=storage.dtype).set_(storage.untyped())  # (n,)
    return numbers.as_strided(tuple(size), tuple(stride), offset)  # refuses what lies outside


def _parameter(data: Any, *gradient: Any) -> Any:
    """In the place of ``torch._utils._rebuild_parameter``."""
    return data


def _bytes(text: str, encoding: str) -> bytes:
    """In the place of ``_codecs.encode``, which old protocols write bytes with."""
    if codecs.lookup(encoding).name != "iso8859-1":
        raise UserError(f"this file encodes text as {encoding}; only bytes are read that way")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _bytes,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
# What NumPy needs to rebuild an array; found where the pickle says, since its modules were renamed.
_ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class _WeightUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if (module, name) in _ARRAY_PARTS:
            return super().find_class(module, name)
        raise UserError(f"this file asks for {module}.{name}; only arrays and tensors are read from a .pkl")
