"""Where runs and their numbers lie: by a hash of what decides them, so that nothing is done twice."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prompt_core.files import read_json, sha256_of_json, write_json


class Store:
    """An ``--output`` folder; several processes may share one.

    ::

        results/TABLE_HASH.json  numbers of one row and seed on one image set; small, may travel alone
        learned/HASH/            what :func:`prompt_core.pretraining.pretrain` writes, and work.json
        locks/HASH               held while a process works on that

    Args:
        folder: is made when something is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.results = self.folder / "results"

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
        """The numbers, None when they are not there yet."""
        path = self.result(key)
        return read_json(path) if path.is_file() else None

    def write(self, key: str, numbers: Mapping[str, float], **about: Any) -> dict[str, Any]:
        """Keep the numbers of a row and seed on an image set; returns the document."""
        flat = {name: None if not math.isfinite(value) else value for name, value in numbers.items()}
        document = {**{name: about[name] for name in sorted(about) if not name.startswith("_")}, **flat}
        document |= {name: value for name, value in about.items() if name.startswith("_")}
        write_json(self.result(key), document)
        return document

    def all(self) -> list[dict[str, Any]]:
        """Every result that is there."""
        return [read_json(path) for path in sorted(self.results.glob("[0-9a-f]*.json"))]

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
