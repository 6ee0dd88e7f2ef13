"""Runs: the numbers of ``metrics.json`` documents, found as files, in folders, and in the results files of tables."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pomp_lab.report.columns import Column, columns_of
from pomp_lab.report.run_details import LARGEST_NUMBER, ClassNumbers, prompt_settings, read_classes, read_history
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.files import read_json

METRICS = "metrics.json"
# Other files in a run's folder may be anything, even predictions of a whole data set; results are small.
LARGEST_RESULT = 5_000_000  # bytes
DEEPEST = 50  # objects and lists within each other
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


@dataclass(frozen=True)
class Ignored:
    """A JSON file that was not read, and why; ``damaged`` where it may have been results."""

    path: Path
    reason: str
    damaged: bool = False


@dataclass(frozen=True)
class FoundRuns:
    """Runs in the order of the arguments, and the JSON files below the folders that were not read."""

    runs: list[Run]
    ignored: list[Ignored]


def find_runs(arguments: Sequence[str | os.PathLike[str]]) -> FoundRuns:
    """Read the runs in files and folders.

    A file that is named must hold results; below a named folder, other files are ``ignored``.

    Args:
        arguments: each a file of results, a folder with a ``metrics.json``, or a folder to look for both in; with
            ``NAME=`` before it a run is called NAME, and several are called NAME/….

    Raises:
        UserError: when there is nothing to read, a named file is not JSON or holds no results, or two runs have the
            same name.
    """
    if not arguments:
        raise UserError("no runs; give files with results, or folders with a metrics.json")
    runs: dict[str, Run] = {}
    ignored: list[Ignored] = []
    for argument in [os.fspath(argument) for argument in arguments]:
        name, equals, rest = argument.partition("=")
        named = bool(equals and name) and not Path(argument).exists()
        path = Path(rest if named else argument)
        members = _read_folder(path, ignored) if path.is_dir() else _read_file(path)
        for run in members:
            if named:
                run = _renamed(run, name if len(members) == 1 else f"{name}/{run.name}")
            other = runs.setdefault(run.name, run)
            if other is not run:
                raise UserError(
                    f"two runs are called {run.name!r}: {other.file} and {run.file}; give one of them as "
                    f"NAME={run.file}"
                )
    return FoundRuns(_joined(runs.values()), ignored)


def _joined(runs: Iterable[Run]) -> list[Run]:
    """Runs with the same ``id`` in several tables merged into one, with all labels and all data sets."""
    by_id: dict[str, Run] = {}
    for run in runs:
        key = str(run.about.get("id") or f"{run.name}/")
        first = by_id.setdefault(key, run)
        if first is not run:
            label = first.label if run.label in first.label.split(" / ") else f"{first.label} / {run.label}"
            numbers, classes = {**first.numbers, **run.numbers}, {**first.classes, **run.classes}
            by_id[key] = dataclasses.replace(first, label=label, numbers=numbers, classes=classes)
    return list(by_id.values())


def _renamed(run: Run, name: str) -> Run:
    """The run under another name; its label changes too where it was the old name."""
    return dataclasses.replace(run, name=name, label=name if run.label == run.name else run.label)


def _read_file(path: Path) -> list[Run]:
    if not path.is_file():
        raise UserError(f"no run at {path}: a folder or a file with results is expected")
    return read_runs(path, _read_document(path), path.resolve().parent.name if path.name == METRICS else path.stem)


def _read_folder(folder: Path, ignored: list[Ignored]) -> list[Run]:
    if (folder / METRICS).is_file():
        return _read_file(folder / METRICS)
    runs: list[Run] = []
    left_out: list[Ignored] = []
    for path in _json_files(folder):
        inside = path.relative_to(folder)
        name = (inside.parent if path.name == METRICS else inside.with_suffix("")).as_posix()
        try:
            if path.name != METRICS and path.is_file() and path.stat().st_size > LARGEST_RESULT:
                left_out.append(Ignored(path, "it is larger than results are"))
                continue
            document = _read_document(path)
            if _is_metrics(document) or (isinstance(document, dict) and isinstance(document.get("runs"), dict)):
                runs += read_runs(path, document, name)
            else:
                left_out.append(Ignored(path, "it holds no results"))
        except UserError as error:
            reason = str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")
            left_out.append(Ignored(path, reason, damaged=True))
    if not runs:
        damaged = next((f"; {file.path} {file.reason}" for file in left_out if file.damaged), "")
        raise UserError(
            f"no run in {folder}: neither a metrics.json nor another file with results, there or below{damaged}"
        )
    ignored += left_out
    return runs


def _json_files(folder: Path) -> Iterator[Path]:
    """In natural order; a folder with a ``metrics.json`` has only that one, which includes its parts."""
    for where, folders, files in os.walk(folder):
        if METRICS in files:
            folders.clear()
            files = [METRICS]
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_natural)
        for name in sorted(files, key=_natural):
            if name.endswith(".json") and not name.startswith("."):
                yield Path(where) / name


def _natural(text: str) -> list[tuple[float, str]]:
    """For sorting: ``k500`` before ``k1000``."""
    return [(float(piece), "") if piece.isdecimal() else (-1.0, piece) for piece in re.split(r"(\d+)", text) if piece]


def _read_document(path: Path) -> Any:
    """The file's JSON.

    Raises:
        UserError: when it is not JSON, or nested deeper than any results are.
    """
    try:
        document = read_json(path)
        level = [document]
        for _ in range(DEEPEST):
            level = [inner for value in level for inner in _inside(value)]
        if level:
            raise RecursionError
    except RecursionError:
        raise UserError(f"{path} holds no results: its objects are nested more than {DEEPEST} levels deep") from None
    return document


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def read_runs(path: Path, document: Any, name: str) -> list[Run]:
    """The runs of a JSON document: a ``metrics.json``, or a results file with many of them.

    Raises:
        UserError: when it holds no results, or a value is not a number.
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
    shared = _object(document, "about", path)
    runs = []
    for key, entry in entries.items():
        about = {**shared, "row": re.sub(r"/seed [^/]*$", "", key), **_object(entry, "_run", path)}
        runs.append(_read_metrics(path, {**entry, "_run": about}, f"{name}/{key}"))
    return runs


def _is_metrics(document: Any) -> bool:
    if not isinstance(document, dict) or not any(isinstance(document.get(key), dict) for key in ("_run", "_protocol")):
        return False
    # Benchmarks of costs have a _run object too, but no flat numbers.
    numbers = [key for key in document if not key.startswith("_")]
    return not numbers or any("/" in key for key in numbers)


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
        name, history, hand = f"{run.name}: {prompt}", [], prompt not in ("learned", "chance")
        if prompt == "learned":
            history = run.history
        runs.append(Run(name, run.file, name, prompts[prompt], about=run.about, history=history, hand=hand))
    return runs


def _selected_on_test(about: Mapping[str, Any], protocols: Mapping[str, Mapping[str, Any]]) -> bool:
    words = [word for stated in (about, *protocols.values()) for word in stated.items()]
    stated = any(key.lower() == "select_on_test" and value is True for key, value in words)
    return stated or bool(_SELECTION.search(str(about.get("config") or "")))


def _number(value: Any, key: str, path: Path) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)) or LARGEST_NUMBER < abs(value) < math.inf:
        raise UserError(f"{path}: {key!r} is {str(value)[:60]!r}; a number is expected")
    return float(value)


def _object(document: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = document.get(key)
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{path}: {key!r} is {str(value)[:60]!r}; an object is expected")
    return value or {}
