"""Runs from documents: a ``metrics.json``, or a results file of a table with many of them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pomp_lab.report.columns import Column, columns_of
from pomp_lab.report.foreign import LARGEST_NUMBER
from pomp_lab.report.run_details import ClassNumbers, prompt_settings, read_classes, read_history
from pomp_lab.runs import DAMAGED, key_of_about
from prompt_core.documents.sealed_json import SEAL, fits_seal, without_seal
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.visible import shortened

METRICS = "metrics.json"
# Other names of numbers that are already present.
ALIASES = {"mIoU-base": "mIoU-seen", "mIoU-unbase": "mIoU-unseen", "hIoU-base": "hIoU"}
# Settings that reports call by another name.
_SETTING_NAMES = {"LOSS.NUM_CLASSES": "K", "num_classes": "K", "LOSS.CORRECTION": "correction"}
# A run may state it in its configuration instead of its protocol.
_SELECTION = re.compile(r"^\s*(?:\w+\.)?SELECT_ON_TEST:\s*true\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Run:
    """Numbers of one run.

    Attributes:
        name: unique in a report.
        label: of its row; runs with one label and settings that differ in the seed alone share a row.
        numbers: percent, or what the metric has; NaN where it is not defined.
        classes: (data set, protocol key) → class → metric → number.
        settings: what distinguishes runs, ``seed`` included; ``K`` and ``correction`` where they are known. Empty where
            the file does not say: such a run has a row of its own.
        about: the ``_run`` object.
        history: one entry per epoch or logged iteration.
        hand: whether the prompt is a hand-written template.
    """

    name: str
    file: Path
    label: str
    numbers: dict[Column, float]
    classes: dict[tuple[str, str], ClassNumbers] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    hand: bool = False

    @property
    def selected_on_test(self) -> bool:
        """Whether the checkpoint was chosen on the reported images."""
        return any(ON_REPORTED in column.protocol.values() for column in self.numbers)


def holds_runs(document: Any) -> bool:
    """Whether a JSON document looks like a ``metrics.json`` or a results file."""
    return _is_metrics(document) or (isinstance(document, dict) and isinstance(document.get("runs"), dict))


def _is_metrics(document: Any) -> bool:
    if not isinstance(document, dict) or not any(isinstance(document.get(key), dict) for key in ("_run", "_protocol")):
        return False
    # Benchmarks of costs have a _run object too, but no flat numbers.
    numbers = [key for key in document if not key.startswith("_")]
    return not numbers or any("/" in key for key in numbers)


def read_runs(path: Path, document: Any, name: str) -> list[Run]:
    """The runs of a JSON document: a ``metrics.json``, or a results file with many of them.

    Raises:
        UserError: when it holds no results, is not what its seals say, or a value is not a number.
    """
    if _is_metrics(document):
        run = _read_metrics(path, document, name)
        return _demo_prompts(run) if any(column.metric == "top1_chance" for column in run.numbers) else [run]
    entries = document.get("runs") if isinstance(document, dict) else None
    if not isinstance(entries, dict) or not entries or not all(map(_is_metrics, entries.values())):
        raise UserError(
            f"{path} holds no results; expected numbers under 'dataset/metric' with '_run' or '_protocol', or many "
            "such objects under 'runs'"
        )
    _check_seals(path, document, entries)
    shared = without_seal(_object(document, "about", path))
    runs = []
    for key, entry in entries.items():
        about = {**shared, "row": re.sub(r"/seed [^/]*$", "", key), **_object(entry, "_run", path)}
        runs.append(_read_metrics(path, {**entry, "_run": about}, f"{name}/{key}"))
    return runs


def _check_seals(path: Path, document: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    damaged = [key for key, entry in entries.items() if not fits_seal(entry, key)]
    about = document.get("about", {SEAL: ""} if any(SEAL in entry for entry in entries.values()) else {})
    if not fits_seal(about, key_of_about(entries)):
        damaged.append("about")
    if damaged:
        raise UserError(f"{path}: {damaged[0]} is damaged ({DAMAGED}); make it again")


def _read_metrics(path: Path, document: Mapping[str, Any], name: str) -> Run:
    about, stated = _object(document, "_run", path), _object(document, "_protocol", path)
    protocols = {dataset: _object(stated, dataset, path) for dataset in stated}
    values: dict[str, dict[str, float]] = {}
    for key, value in document.items():
        if not key.startswith("_"):
            dataset, metric = _split(key, protocols)
            values.setdefault(dataset, {})[metric] = _number(value, key, path)
    chosen = {"selection": ON_REPORTED} if _selected_on_test(about, protocols) else {}
    per_class = read_classes(path.parent) if path.name == METRICS else {}
    numbers: dict[Column, float] = {}
    classes: dict[tuple[str, str], ClassNumbers] = {}
    for dataset, of_metrics in values.items():
        of_metrics = {metric: value for metric, value in of_metrics.items() if ALIASES.get(metric) not in of_metrics}
        # Two unstated protocols are not known to be the same.
        protocol = {**(protocols.get(dataset) or {"protocol": f"not stated by {name}"}), **chosen}
        columns = columns_of(dataset, protocol, of_metrics)
        numbers |= columns
        if dataset in per_class:
            classes[next(iter(columns)).place] = per_class[dataset]
    prompt = str(about.get("prompt") or "")
    # A template, several, or the name of published ones; not the file of a learned prompt.
    template = bool(prompt) and not prompt.endswith((".safetensors", ".tar", ".pth", ".pt"))
    return Run(
        name,
        path,
        label=str(about.get("row") or name),
        numbers=numbers,
        classes=classes,
        settings=_settings(about, path) or ({} if template else prompt_settings(prompt, path.parent)),
        about=about,
        history=read_history(path, about),
        hand=template or about.get("hand_prompt") is True,
    )


def _split(key: str, protocols: Mapping[str, Any]) -> tuple[str, str]:
    """Data set and metric; names of data sets may have slashes, and those with a protocol are known."""
    known = [dataset for dataset in protocols if key.startswith(f"{dataset}/")]
    dataset = max(known, key=len) if known else key.rpartition("/")[0]
    return dataset or "data set not stated", key[len(dataset) + 1 :] if dataset else key.lstrip("/")


def _settings(about: Mapping[str, Any], path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in _object(about, "settings", path).items():
        settings.setdefault(_SETTING_NAMES.get(key, key), value)
    if "correction" in settings:
        settings["correction"] = settings["correction"] or "none"
    if settings or "row" in about:
        settings["seed"] = about.get("seed", settings.get("seed"))
    return settings


def _demo_prompts(run: Run) -> list[Run]:
    """The demonstration scores several prompts in one run: each becomes a run of its own."""
    prompts: dict[str, dict[Column, float]] = {}
    for column, number in run.numbers.items():
        metric, _, prompt = column.metric.partition("_")
        prompts.setdefault(prompt, {})[dataclasses.replace(column, metric=metric)] = number
    runs = []
    for prompt in sorted(prompts.keys() - {"gain", "gain_margin"}, key=lambda p: (p == "learned", p != "chance", p)):
        name, history = f"{run.name}: {prompt}", run.history if prompt == "learned" else []
        hand = prompt not in ("learned", "chance")
        runs.append(Run(name, run.file, name, prompts[prompt], about=run.about, history=history, hand=hand))
    return runs


def _selected_on_test(about: Mapping[str, Any], protocols: Mapping[str, Mapping[str, Any]]) -> bool:
    words = [word for stated in (about, *protocols.values()) for word in stated.items()]
    stated = any(key.lower() == "select_on_test" and value is True for key, value in words)
    return stated or bool(_SELECTION.search(str(about.get("config") or "")))


def _number(value: Any, key: str, path: Path) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{path}: {key!r} is {shortened(value)}; a number is expected")
    if LARGEST_NUMBER < abs(value) < math.inf:
        raise UserError(f"{path}: {key!r} is {shortened(value)}; no metric is larger than {LARGEST_NUMBER:g}")
    return float(value)


def _object(document: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = document.get(key)
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{path}: {key!r} is {shortened(value)}; an object is expected")
    return value or {}
