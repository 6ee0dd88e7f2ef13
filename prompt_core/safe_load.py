"""Reading other people's checkpoints without running their code."""

from __future__ import annotations

import io
import pickle
import re
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prompt_core.errors import UserError

# Integers that OpenAI's exported archives store with the weights; their presence identifies such a file.
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")

# How much larger than the archive its members may be.
EXPANSION = 50
_FOLDER = 0x10  # an attribute of a member
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

_STORAGE_TYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
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
        _check_archive(path)
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
            f"{path} could not be read as a checkpoint ({first_sentence(error)}); it may be truncated or damaged"
        ) from error


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Weights of a model: safetensors, a ``weights_only`` pickle, or the weights of a TorchScript archive.

    Raises:
        UserError: when the file is absent, truncated, or holds something else.
    """
    if not file.is_file():
        raise UserError(f"no weights file at {file}")
    try:
        _check_archive(file)
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        elif _is_torchscript(file):
            # Tracing turns the causal mask, which every model makes itself, into a stored buffer.
            archive = read_torchscript(file)
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


def _check_archive(file: Path) -> None:
    """Refuse an archive that unpacks to far more than it has, or whose members do not fit their checksums.

    Weights hardly compress, and torch stores them plainly. It writes a CRC-32 of each member, which it does not check.

    Raises:
        ValueError: for such an archive.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
        if claimed > EXPANSION * file.stat().st_size:
            raise ValueError(f"it unpacks to {claimed:,} bytes")
        for member in archive.infolist():
            # torch's reader gives memory as it was found for what is marked so.
            if member.external_attr & _FOLDER and not member.is_dir():
                raise ValueError(f"{member.filename} is marked as a folder")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} does not fit its checksum")


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in member or member.endswith("/constants.pkl") for member in archive.namelist())


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """The state dict of a TorchScript archive, read for its tensors alone.

    ``torch.jit.load`` compiles the archive's own code and calls the ``__setstate__`` in it, which may write files. Here
    the archive's pickle goes through a restricted unpickler, and its code is only searched for the names of parameters
    and buffers; a module with a ``__setstate__`` of its own has no tensors by name and is left out.

    Returns:
        What the ``state_dict`` of the loaded module has, on the CPU: tensors that share a storage share it again,
        strides and types are kept.

    Raises:
        Exception: of any type, when the archive is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        (pickled,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
        folder = pickled.removesuffix("data.pkl")
        if _read(archive, f"{folder}byteorder", "little") != sys.byteorder:
            raise ValueError("its numbers are stored in the other byte order")
        names = dict(_state_names(archive, f"{folder}code/"))
        root = _TorchScriptUnpickler(archive, folder).load()
    return dict(_named_tensors(root, names, ""))


class _ScriptModule:
    """A module of a TorchScript archive: its attributes by name, without its code."""

    class_name = ""
    attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _TorchScriptUnpickler(_RestrictedUnpickler):
    """Rebuilds modules as :class:`_ScriptModule`, and tensors as views of the archive's storages."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return type(name, (_ScriptModule,), {"class_name": f"{module}.{name}"})
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        return super().find_class(module, name)

    def persistent_load(self, description: Any) -> Tensor:
        """The storage that ``("storage", type, key, device, number of elements)`` describes, as a tensor (n,)."""
        _, dtype, key, _, count, *_ = description
        if key not in self._storages:
            stored = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            if len(stored) != count * dtype.itemsize:
                raise ValueError(f"storage {key} has {len(stored)} bytes")
            self._storages[key] = torch.frombuffer(stored, dtype=dtype) if count else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _read(archive: zipfile.ZipFile, member: str, default: str) -> str:
    return archive.read(member).decode().strip() if member in archive.namelist() else default


def _state_names(archive: zipfile.ZipFile, folder: str) -> Iterator[tuple[str, set[str]]]:
    """For each class in the archive's code, the names of its parameters and buffers."""
    for member in archive.namelist():
        if not member.startswith(folder) or not member.endswith(".py"):
            continue
        module = member.removeprefix(folder).removesuffix(".py").replace("/", ".")
        for found in re.finditer(
            r"^class (\w+)\(Module\):\s+__parameters__ = \[(.*)\](?:\s+__buffers__ = \[(.*)\])?",
            archive.read(member).decode(),
            re.MULTILINE,
        ):
            name, parameters, buffers = found.groups(default="")
            yield f"{module}.{name}", set(re.findall(r'"([^"]+)"', parameters + buffers))


def _named_tensors(module: _ScriptModule, names: dict[str, set[str]], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.attributes.items():
        if isinstance(value, _ScriptModule):
            yield from _named_tensors(value, names, f"{prefix}{name}.")
        elif isinstance(value, Tensor) and name in names.get(module.class_name, ()):
            yield f"{prefix}{name}", value


def first_sentence(error: Exception) -> str:
    """The first sentence of a library's message, on one line."""
    text = " ".join(str(error).split()).split(". ")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
