"""The files of a run: ``method.safetensors``, for soft prompts also ``prompt.safetensors``, and ``metrics.json``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import MOST_MARKS, image_marks, package_versions, run_description, write_metrics
from prompt_core.files import atomic_path, read_sealed_json
from prompt_core.methods.base import Method
from prompt_core.methods.registry import method_file_metadata
from prompt_core.runs.finite import refuse_not_finite
from prompt_core.runs.identity import refuse_other_run
from prompt_core.safe_load import load_restricted
from prompt_core.training.anchor import Anchor
from prompt_core.training.data import TrainingData
from prompt_core.training.loop import LearningState
from prompt_core.training.selection import Selection
from prompt_core.training.step import LearningSettings

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

METHOD_FILE, METRICS_FILE, STATE_FILE = "method.safetensors", "metrics.json", "state.pt"
FORMAT = 1  # of training states


def write_learned(
    folder: Path,
    cfg: CfgNode,
    method: Method,
    data: TrainingData,
    settings: LearningSettings,
    state: LearningState,
    selection: Selection | None = None,
    anchor: Anchor | None = None,
) -> Path:
    """Write what the loop has learned; returns the file to show the user.

    Args:
        selection: the images that chose the epoch, if any did.
        anchor: what held names that were not learned on, if anything did.

    Raises:
        UserError: when it is not finite.
    """
    _refuse_diverged(folder / STATE_FILE, method.state_module.state_dict())
    last = state.history[-1] if state.history else {"loss": float("nan"), "accuracy": float("nan")}
    metrics = {"train/loss": last["loss"], "train/accuracy": last["accuracy"]}
    training = {**dataclasses.asdict(settings), "images": len(data.batches), "source": data.source}
    if cfg.OPTIM.CLIP_GRAD_NORM:
        training["clip_grad_norm"] = cfg.OPTIM.CLIP_GRAD_NORM
    if anchor is not None:
        training["anchor"] = anchor.describe()
    notes = {
        "K": settings.num_classes,
        "correction": settings.correction,
        "reject": settings.reject,
        "vocabulary": vocabulary_note(data),
        "training": training,
        "metrics": metrics,
        "versions": package_versions(),
    }
    seen = min(settings.num_classes or len(data.vocabulary), len(data.vocabulary))
    protocol = {"train": {"metric": f"running mean over the last epoch, {seen} classes per step, augmented views"}}
    protocol["train"] |= {"vocabulary_sha256": data.vocabulary.sha256, "source": data.source}
    if selection is not None and state.best is not None:
        chosen = {**selection.describe(), "epoch": state.best["epoch"], "accuracy": state.best["accuracy"]}
        notes["selection"] = {**chosen, "images_known_by": sorted(image_marks(selection.images))[:MOST_MARKS]}
        metrics["validation/accuracy"] = chosen["accuracy"]
        words = {"metric": "top-1, the best of all epochs", "candidates": "classes of these images"}
        protocol["validation"] = {**words, **chosen, "vocabulary_sha256": data.vocabulary.sha256}
    method.save(folder / METHOD_FILE, **notes)
    alone = method.save_alone(folder, **notes)
    _write_metrics(folder, cfg, method, data, metrics, protocol, history=state.history)
    return alone or folder / METHOD_FILE


def write_fitted(folder: Path, cfg: CfgNode, method: Method, data: TrainingData, result: dict[str, Any]) -> Path:
    """Write a method that was fitted at once, with the result of :meth:`Method.fit`.

    Raises:
        UserError: when it is not finite.
    """
    _refuse_diverged(folder / STATE_FILE, method.state_module.state_dict())
    numbers = {key: value for key, value in result.items() if isinstance(value, (int, float))}
    metrics = {"validation/accuracy": numbers.pop("validation_accuracy")}
    metrics |= {f"validation/{key}": value for key, value in numbers.items()}
    notes = {"vocabulary": vocabulary_note(data), "metrics": metrics, "versions": package_versions()}
    method.save(folder / METHOD_FILE, **notes, training={"images": len(data.batches), "source": data.source, **result})
    protocol = {
        "metric": f"top-1 on the images that {'C' if 'C' in result else 'the fit'} was chosen by",
        "split": method.validation_split,
        "vocabulary_sha256": data.vocabulary.sha256,
        "source": data.source,
    }
    more = {key: value for key, value in result.items() if key != "validation_accuracy" and key not in numbers}
    _write_metrics(folder, cfg, method, data, metrics, {"validation": protocol}, **more)
    return folder / METHOD_FILE


def unusable(folder: Path, name: str) -> str | None:
    """Why a file of a run cannot be used: it is absent, or does not parse; None for a valid one.

    Args:
        name: :data:`METHOD_FILE`, :data:`METRICS_FILE` or :data:`STATE_FILE`.
    """
    path = folder / name
    if not path.is_file():
        return "absent"
    try:
        if name == METHOD_FILE:
            return None if method_file_metadata(path) is not None else "no method"
        if name == STATE_FILE:
            state = load_restricted(path)
            whole = (
                isinstance(state, dict)
                and state.get("format") == FORMAT
                and {"state", "prompt", "settings"} <= {*state}
            )
            return None if whole else "no training state of this version"
        document = read_sealed_json(path)
    except UserError:
        return "damaged"
    # The numbers of a run and its protocol; both are read for its results.
    whole = isinstance(document, dict) and all(isinstance(document.get(key), dict) for key in ("_run", "_protocol"))
    return None if whole and isinstance(document["_run"].get("history", []), list) else "no numbers of a run"


def vocabulary_note(data: TrainingData) -> dict[str, Any]:
    """The record of the classes in a learned file."""
    return {"source": data.vocabulary.source, "size": len(data.vocabulary), "sha256": data.vocabulary.sha256}


def _write_metrics(
    folder: Path,
    cfg: CfgNode,
    method: Method,
    data: TrainingData,
    metrics: dict[str, float],
    protocols: dict[str, Any],
    **more: Any,
) -> None:
    run = run_description(
        cfg.dump(),
        cfg.SEED,
        str(method.clip.device),
        unreadable=data.unreadable,
        images=len(data.batches),
        method=method.name,
        **more,
    )
    write_metrics(folder / METRICS_FILE, metrics, run, protocols)


def save_state(
    path: Path,
    state: LearningState,
    learned: nn.Module,
    settings: dict[str, Any],
    identity: dict[str, Any] | None = None,
) -> None:
    """Write everything that a resumed run needs, atomically. ``settings`` and ``identity`` must not change in between.

    Raises:
        UserError: when a loss, what is learned, or the optimiser's state is not finite; the earlier file stays.
    """
    state.settle()
    _refuse_diverged(path, learned.state_dict() | {"optimizer": state.optimizer})
    values = {entry.name: getattr(state, entry.name) for entry in dataclasses.fields(state)}
    document = {"format": FORMAT, "state": values, "prompt": learned.state_dict(), "settings": settings}
    with atomic_path(path, durable=True) as temporary:
        torch.save(document | {"identity": identity or {}}, temporary)


def _refuse_diverged(state_file: Path, values: dict[str, Any]) -> None:
    refuse_not_finite(values, "OPTIM.LR", f"the earlier {state_file}" if state_file.is_file() else "")


def load_state(
    path: Path, learned: nn.Module, settings: dict[str, Any], identity: dict[str, Any] | None = None
) -> LearningState:
    """Read a state into ``learned`` and return the counters.

    Args:
        identity: of the run, see :func:`prompt_core.runs.identity.identity_of`; older states hold none.

    Raises:
        UserError: a truncated file, or a run with other settings (the differing keys are named).
    """
    saved = load_restricted(path)
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise UserError(f"{path} is not a training state of this version; start again in another --output")
    refuse_other_run(path, saved.get("identity") or {}, identity or {})
    old = saved["settings"]
    every = dict.fromkeys([*old, *settings])
    refuse_other_run(path, every | old, every | settings)
    learned.load_state_dict(saved["prompt"])
    return LearningState(**saved["state"])
