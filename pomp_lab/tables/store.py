"""Where runs and their numbers lie: by a hash of what decides them, so that nothing is done twice."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_json, write_json


class Store:
    """An ``--output`` folder; several processes may share one.

    ::

        results/TABLE_HASH.json  numbers of one row and seed on one image set; small, may travel alone
        learned/HASH/            what :func:`prompt_core.training.recipe.pretrain` writes, and work.json
        locks/HASH               held while a process works on that

    Args:
        folder: is made when something is written.

    Attributes:
        damaged: results that were asked for and could not be used → why; they count as missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.results = self.folder / "results"
        self.damaged: dict[Path, str] = {}

    @staticmethod
    def key(identity: Mapping[str, Any]) -> str:
        """Short hash of what decides a run or a number."""
        return sha256_of_json(dict(identity))[:16]

    def result(self, key: str) -> Path:
        """File of the numbers."""
        return self.results / f"{key}.json"

    def learned(self, key: str) -> Path:
        """Folder of a run."""
        return self.folder / "learned" / key

    def read(self, key: str) -> dict[str, Any] | None:
        """The numbers, None when they are not there yet or their file is damaged (:attr:`damaged` says why)."""
        path = self.result(key)
        if not path.is_file():
            return None
        document, reason = read_result(path)
        if reason:
            self.damaged[path] = reason
            return None
        return document

    def write(self, key: str, numbers: Mapping[str, float], **about: Any) -> dict[str, Any]:
        """Keep the numbers of a row and seed on an image set; returns the document."""
        flat = {name: None if not math.isfinite(value) else value for name, value in numbers.items()}
        document = {**{name: about[name] for name in sorted(about) if not name.startswith("_")}, **flat}
        document |= {name: value for name, value in about.items() if name.startswith("_")}
        write_json(self.result(key), document)
        return document

    def all(self) -> list[dict[str, Any]]:
        """Every result that is there and whole."""
        found = [read_result(path) for path in sorted(self.results.glob("[0-9a-f]*.json"))]
        return [document for document, reason in found if not reason]

    @contextlib.contextmanager
    def claim(self, key: str, wait: bool = False) -> Iterator[bool]:
        """Whether this process may work on ``key``; another one that does keeps it until it ends, however it ends.

        Args:
            wait: until the other process is done.
        """
        try:
            import fcntl
        except ImportError:  # no such locks on Windows; two processes may then do the same work
            yield True
            return
        path = self.folder / "locks" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def read_result(path: Path) -> tuple[dict[str, Any], str]:
    """The document of a result file, and why it cannot be used; empty where it can."""
    document, reason = read_object(path)
    return document, reason or _damage(document)


def read_object(path: Path) -> tuple[dict[str, Any], str]:
    """A JSON object of a file, and why it is none; empty where it is one."""
    try:
        document = read_json(path)
    except (UserError, RecursionError) as error:
        return {}, "it is no JSON" if isinstance(error, UserError) else "it is nested too deeply"
    return (document, "") if isinstance(document, dict) else ({}, "it holds no object")


def _damage(document: dict[str, Any]) -> str:
    for key in ("settings", "_run", "_protocol"):
        if not isinstance(document.get(key), dict):
            return f"{key} is no object"
    if not isinstance(document.get("row"), str):
        return "row is no text"
    run, protocol = document["_run"], document["_protocol"]
    skipped = run.get("skipped", {})
    for name, value in (*protocol.items(), *((key, run.get(key, {})) for key in ("scoring", "learning", "skipped"))):
        if not isinstance(value, dict):
            return f"{name} is no object"
    if not isinstance(run.get("history", []), list):
        return "history is no list"
    numbers = {key: value for key, value in document.items() if "/" in key}
    for key, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            return f"{key} is no number"
    without = [name for name in protocol if not any(key.startswith(f"{name}/") for key in numbers)]
    if without:
        return f"{without[0]} has no numbers"
    if not numbers and not skipped:
        return "it has no numbers"
    foreign = [key for key in numbers if key.rpartition("/")[0] not in protocol]
    return f"{foreign[0]} has no protocol" if foreign else ""
