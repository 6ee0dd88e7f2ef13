"""Finding runs: in files, in folders, and in the results files of tables."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pomp_lab.report.foreign import read_document
from pomp_lab.report.results import METRICS, Run, holds_runs, read_runs
from pomp_lab.report.run_details import damaged_line
from prompt_core.errors import UserError

# Other files in a run's folder may be anything, even predictions of a whole data set; results are small.
LARGEST_RESULT = 5_000_000  # bytes


class Ignored(NamedTuple):
    """A JSON file that was not read, and why; ``damaged`` where it may have been results."""

    path: Path
    reason: str
    damaged: bool = False


class FoundRuns(NamedTuple):
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
        members, others = _read(Path(rest if named else argument))
        ignored += others
        for run in members:
            if named:
                run = _renamed(run, name if len(members) == 1 else f"{name}/{run.name}")
            if other := runs.get(run.name):
                raise UserError(
                    f"two runs are called {run.name!r}: {other.file} and {run.file}; rename one with NAME={run.file}"
                )
            runs[run.name] = run
    return FoundRuns(_joined(runs.values()), ignored)


def _renamed(run: Run, name: str) -> Run:
    """The run under another name; its label changes too where it was the old name."""
    return dataclasses.replace(run, name=name, label=name if run.label == run.name else run.label)


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


def _read(path: Path) -> FoundRuns:
    """The runs of a file, of a folder with a ``metrics.json``, or of all results below a folder."""
    path = path / METRICS if (path / METRICS).is_file() else path
    if path.is_file():
        name = path.resolve().parent.name if path.name == METRICS else path.stem
        return FoundRuns(read_runs(path, read_document(path), name), _damaged_log(path))
    if not path.is_dir():
        raise UserError(f"no run at {path}; a folder or a file with results is expected")
    found = FoundRuns([], [])
    for file in _json_files(path):
        inside = file.relative_to(path)
        name = (inside.parent if file.name == METRICS else inside.with_suffix("")).as_posix()
        try:
            if file.name != METRICS and file.is_file() and file.stat().st_size > LARGEST_RESULT:
                found.ignored.append(Ignored(file, "it is too large for results"))
            elif holds_runs(document := read_document(file)):
                found.runs.extend(read_runs(file, document, name))
                found.ignored.extend(_damaged_log(file))
            else:
                found.ignored.append(Ignored(file, "it holds no results"))
        except UserError as error:
            reason = str(error).removeprefix(f"{file} ").removeprefix(f"{file}: ")
            found.ignored.append(Ignored(file, reason, damaged=True))
    if not found.runs:
        damaged = next((f"; {file.path} {file.reason}" for file in found.ignored if file.damaged), "")
        raise UserError(f"no run in {path}: it holds neither a metrics.json nor another file with results{damaged}")
    return found


def _damaged_log(file: Path) -> list[Ignored]:
    """The log next to a ``metrics.json``, where a line of it is not whole."""
    log = file.with_name("log.jsonl")
    number = damaged_line(log) if file.name == METRICS and log.is_file() else None
    return [] if number is None else [Ignored(log, f"line {number} is damaged and is left out", damaged=True)]


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
