"""What lies beside a ``metrics.json``: the log, numbers of each class, and the prompt file that was scored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_core.files import read_json

ClassNumbers = dict[str, dict[str, float]]

_CURVES = {"total_loss": "loss", "loss": "loss", "accuracy": "accuracy", "epoch": "epoch", "iteration": "iteration"}


def read_history(metrics: Path, about: Mapping[str, Any]) -> list[dict[str, float]]:
    """Loss, accuracy and epoch or iteration, from ``_run.history`` or else from ``log.jsonl`` beside the file."""
    entries: list[Any] = about.get("history") or []
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
    if not prompt.endswith(".safetensors"):
        return {}
    path = next((path for path in (Path(prompt), folder / prompt) if path.is_file()), None)
    if path is None:
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as stream:
            metadata: dict[str, str] = stream.metadata() or {}
    except (OSError, SafetensorError):
        return {}

    def value(key: str) -> Any:
        try:
            return json.loads(metadata.get(key, "null"))
        except ValueError:
            return metadata[key]

    training = value("training")
    settings = dict(training) if isinstance(training, dict) else {}
    settings.pop("num_classes", None)
    if "K" not in metadata:
        return {}
    vocabulary = value("vocabulary")
    names = vocabulary.get("size") if isinstance(vocabulary, dict) else None
    return {**settings, "K": value("K"), "correction": value("correction"), "method": value("method"), "names": names}
