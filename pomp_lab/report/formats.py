"""The files that hold results, each read into runs: ``metrics.json``, and what the comparison tools keep of a run."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pomp_lab.report.companions import ClassNumbers, prompt_settings, read_classes, read_history
from pomp_lab.report.protocol import protocol_key
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import ON_REPORTED

# A run may say it in its configuration instead of its protocol.
_SELECTION = re.compile(r"^\s*(?:\w+\.)?SELECT_ON_TEST:\s*true\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Part:
    """What a run says of one data set under one protocol.

    Attributes:
        numbers: metric → value; NaN where it is not defined.
        protocol: its words.
        classes: class → metric → value.
    """

    dataset: str
    protocol: dict[str, Any]
    numbers: dict[str, float]
    classes: ClassNumbers = field(default_factory=dict)

    @cached_property
    def key(self) -> tuple[str, str]:
        """Data set and protocol: what numbers must share to stand in one column."""
        return self.dataset, protocol_key(self.protocol)


@dataclass(frozen=True, eq=False)
class Run:
    """Numbers of one run.

    Attributes:
        name: unique in a report.
        file: that it was read from.
        label: of its row; runs with one label and settings that differ in the seed alone share a row.
        parts: its numbers; a data set may come several times, under several protocols.
        settings: what tells runs apart, ``seed`` included; ``K`` and ``correction`` where they are known. Empty where
            the file does not say: such a run has a row of its own.
        about: ``_run``, for the list of runs.
        history: one entry per epoch or logged iteration.
        hand: whether the class names stood in a hand-written template.
    """

    name: str
    file: Path
    label: str
    parts: list[Part]
    settings: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    hand: bool = False

    @property
    def selected_on_test(self) -> bool:
        """Whether the checkpoint was chosen on the reported images."""
        return any(ON_REPORTED in part.protocol.values() for part in self.parts)


def looks_like_results(document: Any) -> bool:
    """Whether :func:`read_runs_of` can read a JSON document."""
    return _reader(document) is not None


def read_runs_of(path: Path, document: Any, name: str) -> list[Run]:
    """The runs in a JSON document.

    Raises:
        UserError: when it is of no known form, or a number is none.
    """
    reader = _reader(document)
    if reader is None:
        raise UserError(f"{path} holds no results")
    return reader(path, document, name)


def _reader(document: Any) -> Callable[[Path, dict[str, Any], str], list[Run]] | None:
    if not isinstance(document, dict):
        return None
    objects = {key for key, value in document.items() if isinstance(value, dict)}
    if {"metrics", "settings", "_protocol"} <= objects and "row" in document:
        return _kept
    if {"settings", "_run", "_protocol"} <= objects and "row" in document:
        return _reproduced
    if {"top1", "settings", "_run"} <= objects and "name" in document:
        return _base_novel
    if "models" in objects and "half" in document:
        return _models
    # A cost benchmark has a description of its run too, but no flat numbers.
    plain = any("/" in key for key in document if not key.startswith("_"))
    empty = all(key.startswith("_") for key in document)
    return _metrics if ("_run" in objects or "_protocol" in objects) and (plain or empty) else None


def _metrics(path: Path, document: dict[str, Any], name: str) -> list[Run]:
    """``metrics.json``: flat numbers, ``_run`` and ``_protocol``."""
    about = _object(document, "_run", path)
    protocol = {key: _object(document["_protocol"], key, path) for key in _object(document, "_protocol", path)}
    numbers: dict[str, dict[str, float]] = {}
    for key, value in document.items():
        if not key.startswith("_"):
            dataset, metric = _split(key, protocol)
            numbers.setdefault(dataset, {})[metric] = _number(value, key, path)
    for dataset in numbers:
        # Two protocols that nobody stated are not known to be the same.
        protocol[dataset] = protocol.get(dataset) or {"protocol": f"not stated by {name}"}
    if chosen_on_test(about, protocol):
        protocol = {dataset: {**words, "selection": ON_REPORTED} for dataset, words in protocol.items()}
    classes = read_classes(path.parent) if path.name == "metrics.json" else {}
    parts = [Part(each, protocol[each], values, classes.get(each, {})) for each, values in numbers.items()]
    prompt = str(about.get("prompt") or "")
    # A template, several, or the name of published ones; not the file of what was learned.
    hand = bool(prompt) and not prompt.endswith((".safetensors", ".tar", ".pth", ".pt"))
    run = Run(
        name,
        path,
        name,
        parts,
        {} if hand else prompt_settings(prompt, path.parent),
        about,
        read_history(path, about),
        hand,
    )
    return _prompts_of_demo(run) if any("top1_chance" in part.numbers for part in parts) else [run]


def _prompts_of_demo(run: Run) -> list[Run]:
    """The demonstration scores several prompts in one run: each becomes a run of its own."""
    keys = {metric.partition("_")[2] for part in run.parts for metric in part.numbers}
    runs = []
    for key in sorted(keys - {"gain", "gain_margin"}, key=lambda key: (key == "learned", key != "chance", key)):
        end = f"_{key}"
        parts = [
            dataclasses.replace(
                part, numbers={m.removesuffix(end): value for m, value in part.numbers.items() if m.endswith(end)}
            )
            for part in run.parts
        ]
        label = f"{run.name}: {key}"
        history = run.history if key == "learned" else []
        runs.append(Run(label, run.file, label, parts, {}, run.about, history, key not in ("learned", "chance")))
    return runs


def _kept(path: Path, document: dict[str, Any], name: str) -> list[Run]:
    """What ``compare_detectors.py`` and ``compare_segmenters.py`` keep of a run."""
    protocol = document["_protocol"]
    dataset = str(protocol.get("split", "data set not stated"))
    label = str(document["row"])
    numbers = {key: _number(value, key, path) for key, value in document["metrics"].items()}
    settings = {key: value for key, value in document["settings"].items() if key != "row"}
    settings["seed"] = document.get("seed", settings.get("seed"))
    about = {"versions": document.get("versions", {}), "seed": settings["seed"]}
    hand = "hand prompt" in label or "{name}" in label
    return [Run(name, path, label, [Part(dataset, protocol, numbers)], settings, about, hand=hand)]


def _reproduced(path: Path, document: dict[str, Any], name: str) -> list[Run]:
    """What ``reproduce.py`` keeps of a row and seed on one image set: as ``metrics.json``, with row and settings."""
    label, settings, seed = str(document["row"]), _object(document, "settings", path), document.get("seed")
    named = ("row", "seed", "settings", "table", "scale")
    (run,) = _metrics(path, {key: value for key, value in document.items() if key not in named}, name)
    return [dataclasses.replace(run, label=label, settings={**settings, "seed": seed}, hand="K" not in settings)]


def joined_parts(runs: Sequence[Run]) -> list[Run]:
    """Runs with the numbers of one learned method on several image sets as one, so that averages can be taken."""
    joined: dict[str, Run] = {}
    for run in runs:
        learned = run.about.get("learned")
        key = run.name if learned is None else f"{run.label} {learned}"
        first = joined.get(key)
        known = {part.key for part in first.parts} if first else set()
        if first is None or any(part.key in known for part in run.parts):
            joined[key if first is None else run.name] = run
        else:
            joined[key] = dataclasses.replace(first, parts=[*first.parts, *run.parts])
    return list(joined.values())


_PARTS = {"base": "Tiny-ImageNet base classes", "novel": "Tiny-ImageNet novel classes", "photos": "ImageNet photos"}


def _base_novel(path: Path, document: dict[str, Any], name: str) -> list[Run]:
    """What ``compare_prompts.py`` keeps: top-1 by ``images / candidates``, geometry of the novel classes."""
    settings = dict(document["settings"])
    half = settings.pop("half", None)
    if "num_classes" in settings:
        settings["K"] = settings.pop("num_classes")
    settings["seed"] = document.get("seed")
    parts = []
    counts: dict[str, int] = {}
    among = ("own classes", "base and novel", "all names")
    for key, value in document["top1"].items():
        part, _, candidates = key.partition(" / ")
        place = counts.setdefault(part, 0)
        counts[part] += 1
        # Photos have no classes but their own, so that their second column is that of all names.
        word = among[2 if part == "photos" and place else place] if place < len(among) else candidates
        number = int(candidates.replace(",", "")) if candidates.replace(",", "").isdecimal() else candidates
        protocol = {"candidate_names": word, "candidates": number, "half": half}
        numbers = {"top1": _number(value, key, path)}
        if part == "novel" and not place:
            # The first column of novel classes is also that of the geometry.
            numbers |= {metric: _number(n, metric, path) for metric, n in _object(document, "novel", path).items()}
        parts.append(Part(_PARTS.get(part, part), protocol, numbers))
    about, label = _object(document, "_run", path), str(document["name"])
    return [Run(name, path, label, parts, settings, about, hand="templates" in settings)]


def _models(path: Path, document: dict[str, Any], name: str) -> list[Run]:
    """What ``build_mini_clip.py --evaluate`` writes: several models, several hand prompts."""
    runs = []
    for model, entry in document["models"].items():
        for prompt, columns in _object(entry, "top1", path).items():
            stated = _object(entry, "columns", path)
            parts = [
                Part(
                    dataset,
                    {**_object(stated, dataset, path), "half": document["half"]},
                    {"top1": _number(value, dataset, path)},
                )
                for dataset, value in columns.items()
            ]
            label = f"{model}: {prompt}"
            about = _object(document, "_run", path)
            runs.append(
                Run(f"{name}: {label}", path, label, parts, about=about, hand="{}" in prompt or "templates" in prompt)
            )
    return runs


def _split(key: str, protocol: Mapping[str, Any]) -> tuple[str, str]:
    """Data set and metric; names of data sets may have slashes, and those with a protocol are known."""
    known = [dataset for dataset in protocol if key.startswith(f"{dataset}/")]
    dataset = max(known, key=len) if known else key.rpartition("/")[0]
    return dataset or "data set not stated", key[len(dataset) + 1 :] if dataset else key.lstrip("/")


def _number(value: Any, key: str, path: Path) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{path}: {key!r} is {str(value)[:60]!r}; a number is expected")
    return float(value)


def _object(document: Any, key: str, path: Path) -> dict[str, Any]:
    value = document.get(key) if isinstance(document, dict) else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key!r} is {str(value)[:60]!r}; an object is expected")
    return value


def chosen_on_test(about: Mapping[str, Any], protocol: Mapping[str, Any]) -> bool:
    flags = [about, *(words for words in protocol.values())]
    stated = any(value is True for each in flags for key, value in each.items() if key.lower() == "select_on_test")
    return stated or bool(_SELECTION.search(str(about.get("config") or "")))
