"""Other files of a run next to ``metrics.json``: the log, numbers of each class, and the prompt that was scored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from prompt_core.config import flatten
from prompt_core.errors import UserError
from prompt_core.files import read_json, read_safetensors, sha256_of_json

# The setting that identifies how a prompt was learned, apart from the seed.
LEARNED_AS = "training_sha256"
# Keys of a training configuration that are settings by themselves, or that do not affect the result.
_NOT_LEARNED = ("SEED", "OUTPUT", "DEVICE", "LOSS.NUM_CLASSES", "LOSS.CORRECTION", "DATA.CACHE", "DATA.WORKERS")
_CURVES = {"total_loss": "loss", "loss": "loss", "accuracy": "accuracy", "epoch": "epoch", "iteration": "iteration"}
ClassNumbers = dict[str, dict[str, float]]


def read_history(metrics: Path, about: Mapping[str, Any]) -> list[dict[str, float]]:
    """Loss, accuracy and epoch or iteration, from ``_run.history`` or else from ``log.jsonl`` next to the file."""
    history = about.get("history")
    entries: list[Any] = history if isinstance(history, list) else []
    log = metrics.parent / "log.jsonl"
    if entries:
        entries = [{"epoch": number, **entry} for number, entry in enumerate(entries, 1) if isinstance(entry, dict)]
    elif metrics.name == "metrics.json" and log.is_file():
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue  # the last line of a run that is going on or was killed
    curve = []
    for entry in filter(lambda entry: isinstance(entry, dict), entries):
        numbers = {name: float(entry[key]) for key, name in _CURVES.items() if _is_finite(entry.get(key))}
        if "loss" in numbers and ("epoch" in numbers or "iteration" in numbers):
            curve.append(numbers)
    return curve


def read_classes(folder: Path) -> dict[str, ClassNumbers]:
    """Data set → class → metric → value, from ``per_class.json`` in the folder and its ``inference_*`` folders.

    Undefined numbers are left out. Classes go by their name, those that share one by name and id.

    Raises:
        UserError: when such a file is not JSON.
    """
    by_dataset: dict[str, ClassNumbers] = {}
    for path in [folder / "per_class.json", *sorted(folder.glob("inference_*/per_class.json"))]:
        # An oracle's numbers bear the data set's name, but are not the model's.
        if not path.is_file() or "_oracle_" in path.parent.name:
            continue
        document = read_json(path)
        if not isinstance(document, dict) or not isinstance(document.get("classes"), list):
            continue
        rows = [row for row in document["classes"] if isinstance(row, dict) and "name" in row]
        names = [str(row["name"]) for row in rows]
        classes = by_dataset.setdefault(str(document.get("dataset", "")), {})
        for row, name in zip(rows, names, strict=True):
            key = name if names.count(name) == 1 else f"{name} ({row.get('id')})"
            measured = [metric for metric in ("top1", "box_AP", "mask_AP", "IoU") if _is_finite(row.get(metric))]
            classes[key] = {metric: float(row[metric]) for metric in measured}
    return by_dataset


def prompt_settings(prompt: str, folder: Path) -> dict[str, Any]:
    """How a scored prompt was learned, from the metadata of its file; empty where the file is gone or says nothing.

    Args:
        prompt: path as given to the run, relative to the working folder or to ``folder``.
    """
    path = next((path for path in (Path(prompt), folder / prompt) if path.is_file()), None)
    if path is None or path.suffix != ".safetensors":
        return {}
    try:
        _, metadata = read_safetensors(path)
    except UserError:
        return {}
    if "K" not in metadata:
        return {}
    training, vocabulary = metadata.get("training"), metadata.get("vocabulary")
    settings = dict(training) if isinstance(training, dict) else {}
    settings.pop("num_classes", None)
    settings |= {key: metadata.get(key) for key in ("K", "correction", "method")}
    settings["names"] = vocabulary.get("size") if isinstance(vocabulary, dict) else None
    configuration = _training_configuration(path, metadata)
    if configuration is not None:
        keys = [k for k in configuration if k not in _NOT_LEARNED and not k.startswith(("LOG.", "EVAL."))]
        settings[LEARNED_AS] = sha256_of_json({key: configuration[key] for key in keys})
    return settings


def _training_configuration(prompt: Path, metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration that a prompt was learned with, from the ``metrics.json`` next to it.

    None where there is none, or where its numbers are not those in the prompt's file.
    """
    try:
        document = read_json(prompt.parent / "metrics.json")
        configuration = yaml.safe_load(document["_run"]["config"])
    except (UserError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None
    numbers = metadata.get("metrics")
    if not isinstance(configuration, dict) or not isinstance(numbers, dict) or not numbers:
        return None
    same = all(document.get(key) == value for key, value in numbers.items())
    return dict(flatten(configuration)) if same else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
