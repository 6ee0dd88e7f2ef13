"""Runs of experiments: each is done once, identified by its inputs, and its numbers are a ``metrics.json``.

::

    FOLDER/ID/metrics.json  the numbers of a run, with row, seed, id and settings under ``_run``
    RESULTS/TABLE.json      {"about": {...}, "runs": {"ROW/seed N": the same document, ...}}; can be moved by itself

What a run is (learning a prompt in this process, training a detector in another) is the experiment's matter.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_core.documents.sealed_json import fits_seal, sealed, without_seal
from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_json, write_sealed_json, write_text
from prompt_core.visible import say

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

METRICS_FILE = "metrics.json"
DAMAGED = "its content does not fit its checksum"
Document = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """One row of a table with one seed.

    Attributes:
        row: name in the table.
        seed: None where nothing is random.
        identity: everything that determines its numbers, as JSON.
    """

    row: str
    seed: int | None
    identity: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """Hash of :attr:`identity`."""
        return sha256_of_json(dict(self.identity))[:16]

    @property
    def key(self) -> str:
        """Key in a results file."""
        return self.row if self.seed is None else f"{self.row}/seed {self.seed}"

    @property
    def label(self) -> str:
        """For messages."""
        return self.row if self.seed is None else f"{self.row}, seed {self.seed}"


class RunStore:
    """The folder of runs and their numbers; several processes may share one.

    Args:
        folder: of the runs, created when something is written.
        results: the table's results file; runs in it count as done, even if their folders are gone.
        write_line: called with each line that :meth:`report` says.
    """

    def __init__(self, folder: Path, results: Path, write_line: Callable[[str], None] = say) -> None:
        self.folder, self.results, self._write_line = folder, results, write_line
        self._reported: set[str] = set()

    def folder_of(self, run: Run) -> Path:
        """Folder for the output of a run."""
        return self.folder / run.id

    def document(self, run: Run) -> Document | None:
        """The numbers of exactly this run, None where it is not done."""
        written = self._load(self.folder_of(run) / METRICS_FILE, damage)
        for document in (written, self._results.get(run.key)):
            if document is not None and document["_run"].get("id") == run.id:
                return document
        return None

    def keep(self, run: Run, document: Mapping[str, Any], **about: Any) -> Document:
        """Write the numbers of a run; numbers that are not finite become null.

        Args:
            document: as in ``metrics.json``.
            about: more of ``_run``, such as ``settings``.
        """
        numbers = {key: value for key, value in document.items() if not key.startswith("_")}
        finite = {key: None if value is None or not math.isfinite(value) else value for key, value in numbers.items()}
        described = {"row": run.row, **document["_run"], "seed": run.seed, "id": run.id, **about}
        stored = {**finite, "_run": described, "_protocol": document["_protocol"]}
        write_sealed_json(self.folder_of(run) / METRICS_FILE, stored)
        return stored

    def write_results(self, about: Mapping[str, Any], documents: Mapping[str, Document]) -> None:
        """Put the runs of a table into its results file; other rows and seeds there are kept.

        Args:
            about: the table, such as its ``title``.
            documents: by :attr:`Run.key`.
        """
        with self.claim("results", wait=True):
            self.__dict__.pop("_results", None)
            write_results(self.results, about, {**self._results, **documents})
            self.__dict__.pop("_results", None)

    def report(self, line: str) -> None:
        """Say what is done, or which damaged file is ignored; each line once."""
        if line not in self._reported:
            self._reported.add(line)
            self._write_line(line)

    @contextlib.contextmanager
    def claim(self, name: str, wait: bool = False) -> Iterator[bool]:
        """Whether this process may work on something; another process keeps its claim until it ends, however it ends.

        Args:
            wait: until the other process is done.
        """
        try:
            import fcntl
        except ImportError:  # no such locks on Windows; two processes may then do the same work
            yield True
            return
        path = self.folder / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def once(self, file: Path, make: Callable[[], object]) -> Path:
        """Make a file that several runs start from, unless it is there; another process that makes it is waited for.

        Args:
            file: alone in its folder, or the last one written there; a run's folder is claimed as the run is.
            make: writes it.
        """
        for wait in (False, True):
            if file.is_file():
                break
            with self.claim(file.parent.name, wait) as mine:
                if not mine:
                    self.report(f"waiting for another process: {file.parent.name}/{file.name}")
                elif not file.is_file():
                    make()
        return file

    @cached_property
    def _results(self) -> dict[str, Document]:
        """The valid documents of the results file."""
        file = self._load(self.results, lambda file: "" if isinstance(_runs(file), dict) else "it holds no runs")
        documents = _runs(file) or {}
        reasons = {key: damage(one) if fits_seal(one, key) else DAMAGED for key, one in documents.items()}
        damaged = {key: reason for key, reason in reasons.items() if reason}
        for key, reason in damaged.items():
            self._report_damage(f"{self.results}: {key}", reason)
        return {key: without_seal(document) for key, document in documents.items() if key not in damaged}

    def _load(self, path: Path, damage: Callable[[Any], str]) -> Any:
        """The JSON of a file, None where it is absent or damaged; damage is reported."""
        if not path.is_file():
            return None
        try:
            document = read_json(path)
            reason = damage(document) if fits_seal(document) else DAMAGED
        except (UserError, RecursionError):
            reason = "not valid JSON"
        if not reason:
            return without_seal(document)
        self._report_damage(str(path), reason)
        return None

    def _report_damage(self, what: str, reason: str) -> None:
        self.report(f"{what} is damaged ({reason}) and is ignored")


def _runs(file: Any) -> Any:
    return file.get("runs") if isinstance(file, dict) else None


def run_missing(store: RunStore, runs: Sequence[Run], do: Callable[[Run], None]) -> None:
    """Do each run; those that another process is working on come last.

    Args:
        do: called while this process has the claim on the run; does what is missing.
    """
    for wait in (False, True):
        later = []
        for run in runs:
            with store.claim(run.id, wait) as mine:
                if mine:
                    do(run)
                else:
                    later.append(run)
        runs = later
        for run in runs:
            store.report(f"waiting for another process: {run.label}")


def damage(document: Any) -> str:
    """Why a ``metrics.json`` document cannot be used; empty where it can."""
    if not isinstance(document, dict):
        return "not an object"
    for key in ("_run", "_protocol"):
        if not isinstance(document.get(key), dict):
            return f"{key} is not an object"
    datasets = {key.rpartition("/")[0] for key in document if not key.startswith("_")}
    for name in datasets ^ document["_protocol"].keys():
        return f"{name} has no {'protocol' if name in datasets else 'numbers'}"
    return "" if datasets or document["_run"].get("skipped") else "it has no numbers"


def part_of(document: Mapping[str, Any], datasets: Iterable[str]) -> Document:
    """The document with the numbers, protocols and reasons of only some data sets."""
    wanted = set(datasets)
    numbers = {key: value for key, value in document.items() if key.rpartition("/")[0] in wanted}
    run = dict(document["_run"])
    if skipped := {name: why for name, why in run.pop("skipped", {}).items() if name in wanted}:
        run["skipped"] = skipped
    protocol = {name: words for name, words in document["_protocol"].items() if name in wanted}
    return {**numbers, "_run": run, "_protocol": protocol}


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the range between the smallest and the largest value."""
    return float(np.mean(values)), float(np.ptp(values) / 2)


def mean_text(values: Sequence[float], digits: int = 1) -> str:
    """The mean, with ± half the range where there are several values."""
    if not values:
        return f"{math.nan}"
    mean, spread = mean_and_spread(values)
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if len(values) > 1 else "")


def plain_command(command: str | None = None) -> str:
    """A command without the machine's folders; that of this process for None."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if command is None else command.split(" ")
    return " ".join(word.rstrip("/").rsplit("/", 1)[-1] for word in words)


def learn(cfg: CfgNode, folder: Path) -> None:
    """Learn a prompt or another method, or continue where it was interrupted.

    Raises:
        UserError: when the folder holds a run with other settings.
        KeyboardInterrupt: on Ctrl-C; the same call continues.
    """
    from prompt_core.training.recipe import pretrain

    if pretrain(cfg, folder, resume=(folder / "state.pt").exists()):
        raise KeyboardInterrupt


def run_process(target: Callable[..., None], arguments: tuple[Any, ...], what: str) -> None:
    """Run ``target`` in a new process, so that runs share nothing; it does not outlive this one.

    Ctrl-C here asks it to stop and waits, so that a training keeps its checkpoint.

    Raises:
        UserError: when it ends with a code other than 0.
    """
    worker = multiprocessing.get_context("spawn").Process(target=_with_parent, args=(target, arguments))
    worker.start()
    try:
        worker.join()
    finally:
        if worker.is_alive():
            worker.terminate()
            worker.join()
    if worker.exitcode:
        raise UserError(f"the run of {what} stopped with code {worker.exitcode}")


def _with_parent(target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in a terminal goes to the parent alone, which passes it on

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    target(*arguments)


def key_of_about(runs: Iterable[str]) -> str:
    """What the object about a results file is sealed with: two runs cannot become one."""
    return json.dumps(["about", *runs])


def write_results(path: Path, about: Mapping[str, Any], runs: Mapping[str, Document]) -> None:
    """Write a results file, one run per line, with the command of this process; each part with its seal."""

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = ",\n".join(f"    {compact(key)}: {compact(sealed(document, key))}" for key, document in runs.items())
    about = sealed({"command": plain_command(), **about}, key_of_about(runs))
    write_text(path, f'{{\n  "about": {compact(about)},\n  "runs": {{\n{lines}\n  }}\n}}\n')
