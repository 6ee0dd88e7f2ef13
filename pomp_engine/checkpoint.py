"""Loading and saving models: checkpoints and backbone weights, read without running what a file holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from pomp_engine.weight_pickles import check_state_dict, read_pickle
from prompt_core.errors import UserError, nearest
from prompt_core.fetch.advice import where_from
from prompt_core.fetch.places import PACKAGE, packaged_path
from prompt_core.files import atomic_path, write_text
from prompt_core.runs.finite import refuse_not_finite
from prompt_core.safe_load import first_sentence, load_restricted
from prompt_core.towers.offline import with_files

logger = logging.getLogger(__name__)

TIMM = "timm://"


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
        """Write ``name.pth`` and point ``last_checkpoint`` at it; a killed process leaves neither half-written.

        Raises:
            UserError: when the parameters, or the optimiser's state, are not finite; earlier checkpoints stay.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        optimizer = self.checkpointables.get("optimizer")
        values = dict(self.model.named_parameters()) | {"optimizer": optimizer.state_dict() if optimizer else None}
        refuse_not_finite(values, "SOLVER.BASE_LR", "the last checkpoint" if self.has_checkpoint() else "")
        state = {"model": self.model.state_dict()} | {
            key: part.state_dict() for key, part in self.checkpointables.items()
        }
        target = Path(self.save_dir) / f"{name}.pth"
        logger.info("saving checkpoint %s", target)
        with atomic_path(target, durable=True) as temporary:
            torch.save(state | kwargs, temporary)
        self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the newest checkpoint."""
        write_text(Path(self.save_dir) / "last_checkpoint", last_filename_basename, durable=True)

    def load(self, path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Load a file, or an address.

        Addresses are those that Detectron2 knows, ``package://PACKAGE/FILE`` inside an installed package, and
        ``timm://NAME`` of weights that timm lists.

        Raises:
            UserError: when the file is absent or damaged, or cannot be fetched.
        """
        for prefix, find in ((PACKAGE, packaged_file), (TIMM, timm_file)):
            if str(path).startswith(prefix):
                path = str(find(str(path)))
        # Detectron2 takes options after a question mark.
        if path and "://" not in str(path) and not Path(str(path).partition("?")[0]).is_file():
            raise UserError(
                f"weights {path} do not exist; set MODEL.WEIGHTS to a checkpoint, or leave it empty{where_from(path)}"
            )
        return super().load(str(path), *arguments, **options)

    def _load_file(self, filename: str) -> dict[str, Any]:
        suffix = Path(filename).suffix
        if suffix == ".pkl":
            return read_pickle(filename)
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
        # Training of classifiers keeps its weights as "state_dict" (timm), pycls as "model_state".
        state = next((loaded[key] for key in ("model", "state_dict", "model_state") if key in loaded), loaded)
        state = check_state_dict(state, filename)
        return (dict(loaded) if "model" in loaded else {"model": state}) | heuristics

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
        """A classifier's weights under the model's keys, by its backbone, else matched by the endings of their keys."""
        for name, module in self.model.named_modules():
            translate = getattr(module, "from_classifier", None)
            weights = None if translate is None else translate(state)
            if weights is not None:
                return {"model": {f"{name}.{key}" if name else key: value for key, value in weights.items()}}
        return {"model": state, "matching_heuristics": True}


def packaged_file(address: str) -> Path:
    """The file that ``package://PACKAGE/FILE`` names, for weights that come as a Python package.

    Raises:
        UserError: when the package is not installed, or lacks the file.
    """
    try:
        file = packaged_path(address)
    except UserError as error:
        raise UserError(f"weights {address}: {error}") from error
    if not file.is_file():
        name, _, inner = address.removeprefix(PACKAGE).partition("/")
        raise UserError(f"weights {address}: package {name} has no file {inner}")
    return file


def timm_file(address: str) -> Path:
    """The file of weights that ``timm://NAME`` names, such as ``timm://resnet18.tv_in1k``; fetched once.

    Raises:
        UserError: when timm lists no such weights, or they cannot be fetched.
    """
    from huggingface_hub import hf_hub_download
    from timm.models import get_pretrained_cfg, list_models, list_pretrained

    name = address.removeprefix(TIMM)
    known = [*list_pretrained(), *list_models()]
    listed = get_pretrained_cfg(name) if name in known else None
    if listed is None or not listed.hf_hub_id:
        raise UserError(f"weights {address}: timm has none of that name{nearest(name, known)}")
    repository = str(listed.hf_hub_id)
    try:
        return Path(with_files(lambda: hf_hub_download(repository, "model.safetensors")))
    except Exception as error:  # the hub's own exceptions, and those of the network
        raise UserError(
            f"weights {address} could not be fetched ({first_sentence(error)}); set MODEL.WEIGHTS to a file of them, "
            "or MODEL.TIMM.PRETRAINED False to start from random weights"
        ) from error
