"""Finding runs: files, folders with a ``metrics.json``, folders of such folders; every run has a name of its own."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.report.formats import Run, joined_parts, looks_like_results, read_runs_of
from prompt_core.errors import UserError
from prompt_core.files import read_json

METRICS = "metrics.json"
# Files beside runs may be anything, predictions of a whole data set included; results are small.
LARGEST_RESULT = 5_000_000


@dataclass(frozen=True)
class Ignored:
    """A file that was not read, and why.

    Attributes:
        damaged: whether it may have been results.
    """

    path: Path
    reason: str
    damaged: bool = False


@dataclass(frozen=True)
class Found:
    """What was read.

    Attributes:
        runs: in the order of the arguments; those of one folder with hand-written prompts first, then by label.
        ignored: JSON files below the folders that were not read.
    """

    runs: list[Run]
    ignored: list[Ignored]


def find_runs(arguments: Sequence[str | os.PathLike[str]]) -> Found:
    """Read the runs in files and folders.

    What is named must be results; of what only lies below a named folder, other files are listed in ``ignored``.

    Args:
        arguments: each a file of results, a folder with a ``metrics.json``, or a folder to look for both in; with
            ``NAME=`` before it a run is called NAME, and several are called NAME/….

    Raises:
        UserError: when there is nothing to read, a named file is no JSON or holds no results, or two runs have one
            name.
    """
    if not arguments:
        raise UserError("no runs; give files with results, or folders with a metrics.json")
    runs: list[Run] = []
    ignored: list[Ignored] = []
    for argument in arguments:
        name, path = _named(os.fspath(argument))
        found = _read_folder(path, ignored) if path.is_dir() else _read_file(path)
        if name:
            found = [_renamed(run, name if len(found) == 1 else f"{name}/{run.name}") for run in found]
        runs += found
    _check_names(runs)
    return Found(runs, ignored)


def _natural(text: str) -> list[tuple[float, str]]:
    """For sorting: ``K=500`` before ``K=1000``."""
    return [(float(piece), "") if piece.isdecimal() else (-1.0, piece) for piece in re.split(r"(\d+)", text) if piece]


def _named(argument: str) -> tuple[str, Path]:
    name, equals, rest = argument.partition("=")
    if equals and name and not Path(argument).exists():
        return name, Path(rest)
    return "", Path(argument)


def _renamed(run: Run, name: str) -> Run:
    """A run whose row was called by its name is called by the new one; a row that has a label of its own keeps it."""
    return dataclasses.replace(run, name=name, label=name if run.label == run.name else run.label)


def _check_names(runs: Sequence[Run]) -> None:
    seen: dict[str, Run] = {}
    for run in runs:
        other = seen.setdefault(run.name, run)
        if other is not run:
            raise UserError(
                f"two runs are called {run.name!r}: {other.file} and {run.file}; give one of them as NAME={run.file}"
            )


def _read_file(path: Path) -> list[Run]:
    if not path.is_file():
        raise UserError(f"no run at {path}: a folder or a file with results is expected")
    name = path.resolve().parent.name if path.name == METRICS else path.stem
    return _read(path, read_json(path), name)


def _read_folder(folder: Path, ignored: list[Ignored]) -> list[Run]:
    if (folder / METRICS).is_file():
        return _read_file(folder / METRICS)
    runs: list[Run] = []
    left_out: list[Ignored] = []
    for path in _candidates(folder):
        inside = path.relative_to(folder)
        metrics = path.name == METRICS
        try:
            if not metrics and path.is_file() and path.stat().st_size > LARGEST_RESULT:
                left_out.append(Ignored(path, "it is larger than results are"))
                continue
            document = read_json(path)
            if looks_like_results(document):
                runs += read_runs_of(path, document, (inside.parent if metrics else inside.with_suffix("")).as_posix())
            else:
                left_out.append(Ignored(path, "it holds no results"))
        except UserError as error:
            left_out.append(Ignored(path, str(error).removeprefix(f"{path} ").removeprefix(f"{path}: "), True))
    if not runs:
        damaged = [each for each in left_out if each.damaged]
        more = f"; {damaged[0].path} {damaged[0].reason}" if damaged else ""
        raise UserError(
            f"no run in {folder}: neither a metrics.json nor another file with results, there or below{more}"
        )
    ignored += left_out
    # Files may be named by hashes.
    return sorted(joined_parts(runs), key=_by_label)


def _by_label(run: Run) -> tuple[Any, ...]:
    return not run.hand, _natural(run.label), _natural(str(run.settings.get("seed"))), run.name


def _candidates(folder: Path) -> Iterator[Path]:
    """JSON files, sorted; below a folder with a ``metrics.json`` nothing else, since its parts are in that file."""
    for where, folders, files in os.walk(folder):
        if METRICS in files:
            folders.clear()
            files = [METRICS]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.endswith(".json") and not name.startswith("."):
                yield Path(where) / name


def _read(path: Path, document: Any, name: str) -> list[Run]:
    if not looks_like_results(document):
        raise UserError(
            f"{path} holds no results; expected numbers under 'dataset/metric' with '_run' or '_protocol', or what the "
            "comparison tools write for a run"
        )
    return read_runs_of(path, document, name)
