"""What lies beside a ``metrics.json``: the log, numbers of each class, and the prompt file that was scored."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_json

# The setting that says what all but the seed of a learned prompt was.
LEARNED_AS = "training_sha256"
# Keys of a training's configuration that stand in settings by themselves, or that decide nothing.
_SAID = ("SEED", "OUTPUT", "DEVICE", "LOG", "EVAL", "LOSS.NUM_CLASSES", "LOSS.CORRECTION", "DATA.CACHE", "DATA.WORKERS")
ClassNumbers = dict[str, dict[str, float]]

_CURVES = {"total_loss": "loss", "loss": "loss", "accuracy": "accuracy", "epoch": "epoch", "iteration": "iteration"}


def read_history(metrics: Path, about: Mapping[str, Any]) -> list[dict[str, float]]:
    """Loss, accuracy and epoch or iteration, from ``_run.history`` or else from ``log.jsonl`` beside the file."""
    given = about.get("history")
    entries: list[Any] = given if isinstance(given, list) else []
    if entries:
        entries = [{"epoch": number, **entry} for number, entry in enumerate(entries, 1) if isinstance(entry, dict)]
    elif metrics.name == "metrics.json" and (metrics.parent / "log.jsonl").is_file():
        for line in (metrics.parent / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue  # the last line of a run that is going on or was killed
    kept = []
    for entry in entries:
        numbers = {
            name: float(entry[key])
            for key, name in _CURVES.items()
            if isinstance(entry, dict) and isinstance(entry.get(key), (int, float)) and math.isfinite(entry[key])
        }
        if "loss" in numbers and ("epoch" in numbers or "iteration" in numbers):
            kept.append(numbers)
    return kept


def read_classes(folder: Path) -> dict[str, ClassNumbers]:
    """Data set → class → metric → value, from ``per_class.json`` in the folder and its ``inference_*`` folders.

    Numbers that are not defined are left out. Classes are called by their name, those that share one by name and id.

    Raises:
        UserError: when such a file is no JSON.
    """
    found: dict[str, ClassNumbers] = {}
    for path in [folder / "per_class.json", *sorted(folder.glob("inference_*/per_class.json"))]:
        # An oracle's numbers have the data set's name, and are not the model's.
        if not path.is_file() or "_oracle_" in path.parent.name:
            continue
        document = read_json(path)
        if not isinstance(document, dict) or not isinstance(document.get("classes"), list):
            continue
        rows = [row for row in document["classes"] if isinstance(row, dict) and "name" in row]
        names = [str(row["name"]) for row in rows]
        classes = found.setdefault(str(document.get("dataset", "")), {})
        for row, name in zip(rows, names, strict=True):
            key = name if names.count(name) == 1 else f"{name} ({row.get('id')})"
            classes[key] = {
                metric: float(value)
                for metric, value in row.items()
                if metric in ("top1", "box_AP", "mask_AP", "IoU")
                and isinstance(value, (int, float))
                and math.isfinite(value)
            }
    return found


def prompt_settings(prompt: str, folder: Path) -> dict[str, Any]:
    """How a scored prompt was learned, from the metadata of its file; empty where the file is gone or says nothing.

    Args:
        prompt: path as the run was given it, from the working folder or from ``folder``.
    """
    path = next((path for path in (Path(prompt), folder / prompt) if _is_learned(path)), None)
    metadata = {} if path is None else _metadata(path)
    training = metadata.get("training")
    settings = dict(training) if isinstance(training, dict) else {}
    settings.pop("num_classes", None)
    if path is None or "K" not in metadata:
        return {}
    vocabulary = metadata.get("vocabulary")
    names = vocabulary.get("size") if isinstance(vocabulary, dict) else None
    told = {key: metadata.get(key) for key in ("K", "correction", "method")}
    configuration = training_configuration(path)
    if configuration is not None:
        # K and the correction have names of their own; the rest are places.
        settings[LEARNED_AS] = sha256_of_json(_without(configuration, _SAID))
    return {**settings, **told, "names": names}


def training_configuration(prompt: Path) -> dict[str, Any] | None:
    """What a learned file was trained with, all of it, from the ``metrics.json`` that its training left beside it.

    None where there is none, or where its numbers are not those in the file.
    """
    if not _is_learned(prompt):
        return None
    kept = _metadata(prompt).get("metrics")
    try:
        document = read_json(prompt.parent / "metrics.json")
        configuration = yaml.safe_load(document["_run"]["config"])
    except (UserError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None
    if not isinstance(configuration, dict) or not isinstance(kept, dict) or not kept:
        return None
    same = all(document.get(key) == value for key, value in kept.items())
    return configuration if same else None


def _is_learned(path: Path) -> bool:
    return path.suffix == ".safetensors" and path.is_file()


def _metadata(path: Path) -> dict[str, Any]:
    """What a learned file says of itself; a text where that is no JSON."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as stream:
            texts: dict[str, str] = stream.metadata() or {}
    except (OSError, SafetensorError):
        return {}
    found: dict[str, Any] = {}
    for key, text in texts.items():
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def _without(node: Mapping[str, Any], names: Collection[str], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        if name not in names:
            flat |= _without(value, names, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
