"""Other files of a run next to ``metrics.json``: the log, numbers of each class, and the prompt that was scored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pomp_lab.report.foreign import is_number, read_configuration, read_document
from prompt_core.config import flatten
from prompt_core.files import read_safetensors, sha256_of_json

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
        entries = [entry for entry in _lines(log) if entry is not None]
    curve = []
    for entry in filter(lambda entry: isinstance(entry, dict), entries):
        numbers = {name: float(entry[key]) for key, name in _CURVES.items() if is_number(entry.get(key))}
        if "loss" in numbers and ("epoch" in numbers or "iteration" in numbers):
            curve.append(numbers)
    return curve


def damaged_line(log: Path) -> int | None:
    """The number of the first line of a log that is not whole; the last one is that of a run that goes on."""
    return next((number for number, entry in enumerate(_lines(log)[:-1], 1) if entry is None), None)


def _lines(log: Path) -> list[Any]:
    """The JSON of each line, None where it is not whole."""
    entries: list[Any] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entries.append(json.loads(line))
        except (ValueError, RecursionError):
            entries.append(None)
    return entries


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
        document = read_document(path)
        if not isinstance(document, dict) or not isinstance(document.get("classes"), list):
            continue
        rows = [row for row in document["classes"] if isinstance(row, dict) and "name" in row]
        times = Counter(str(row["name"]) for row in rows)
        classes = by_dataset.setdefault(str(document.get("dataset", "")), {})
        for row in rows:
            name = str(row["name"])
            measured = [metric for metric in ("top1", "box_AP", "mask_AP", "IoU") if is_number(row.get(metric))]
            key = name if times[name] == 1 else f"{name} ({row.get('id')})"
            classes[key] = {metric: float(row[metric]) for metric in measured}
    return by_dataset


def prompt_settings(prompt: str, folder: Path) -> dict[str, Any]:
    """How a scored prompt was learned, from the metadata of its file; empty where the file is gone or says nothing.

    Args:
        prompt: path as given to the run, relative to the working folder or to ``folder``.
    """
    try:
        places = [path for path in (Path(prompt), folder / prompt) if path.suffix == ".safetensors" and path.is_file()]
        _, metadata = read_safetensors(places[0])
    except (IndexError, OSError, ValueError, RecursionError):
        return {}
    if "K" not in metadata:
        return {}
    training, vocabulary = metadata.get("training"), metadata.get("vocabulary")
    settings = dict(training) if isinstance(training, dict) else {}
    settings.pop("num_classes", None)
    settings |= {key: metadata.get(key) for key in ("K", "correction", "method")}
    settings["names"] = vocabulary.get("size") if isinstance(vocabulary, dict) else None
    identity = _training_identity(places[0], metadata)
    return {**settings, LEARNED_AS: identity} if identity else settings


def _training_identity(prompt: Path, metadata: Mapping[str, Any]) -> str | None:
    """Hash of what decided the learning of a prompt but the seed, from the ``metrics.json`` next to it.

    None where there is none, or where its numbers are not those in the prompt's file.
    """
    try:
        document = read_document(prompt.parent / "metrics.json")
        configuration = dict(flatten(read_configuration(str(document["_run"]["config"]))))
        numbers = metadata["metrics"]
        if not (numbers and configuration) or any(document.get(key) != value for key, value in numbers.items()):
            return None
        keys = [k for k in configuration if k not in _NOT_LEARNED and not k.startswith(("LOG.", "EVAL."))]
        return sha256_of_json({key: configuration[key] for key in keys})
    # Somebody else's file may be anything.
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
