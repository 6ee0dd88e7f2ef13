"""Runs that are killed at drawn moments and go on: what is whole after each kill, and what is the same in the end."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .tools import ENVIRONMENT

SERVER = Path(__file__).with_name("kill_server.py")
TEMPORARY = re.compile(r"\..*\.tmp(\.[^.]*)?|\.running|.*\.part(\.json)?")
# Written for people while a run goes: times, and means over what one process has seen.
LOGS = ("tensorboard", "log.txt", ".json.part")
# Of JSON documents: when, how long, and with which command.
VOLATILE = {"created", "date", "time", "seconds", "duration", "command", "index_sha256", "_sha256"}
POLITE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Task:
    """A command that is killed.

    Attributes:
        tool: below the project.
        arguments: with paths that are absolute, or relative to the folder of the run.
        inputs: is copied into that folder, for tools that write to their inputs' folder.
        resume: called with the folder; the arguments to add when the run goes on.
        before: Python code that the process of a run executes first.
    """

    name: str
    tool: str
    arguments: tuple[str, ...]
    inputs: Path | None = None
    resume: Callable[[Path], list[str]] = field(default=lambda folder: [])
    environment: Mapping[str, str] = field(default_factory=dict)
    before: str = ""


@dataclass(frozen=True)
class Strike:
    """When and how a run is ended, see ``kill_server``."""

    at: int
    signals: tuple[int, ...]
    gap: int = 1
    bytes: int | None = None

    @property
    def name(self) -> str:
        """``write`` for a kill in the middle of one, else the signals."""
        if self.bytes is not None:
            return "SIGKILL within a write"
        return ", ".join(signal.Signals(number).name for number in self.signals)


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: exit code, negative for a signal.
        struck: the moment at which a strike hit; empty where the run ended before.
        moments: all that a run without a strike passed.
    """

    code: int
    out: str
    error: str
    struck: str = ""
    moments: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether all was done, now or before: a kill may come behind the last file."""
        return self.code == 0 or (self.code == 2 and "already holds a run; choose another" in self.error)


class ForkServer:
    """Runs tools, each in a process of its own, without importing anything again; see ``kill_server``.

    Args:
        answers: an empty folder.
        regions: whether detectors and segmenters are imported too.
    """

    def __init__(self, answers: Path, regions: bool) -> None:
        command = [sys.executable, "-W", "ignore", str(SERVER), str(answers), *(["regions"] if regions else [])]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=ENVIRONMENT, text=True)
        self.threads = int(self._answer()["threads"])

    def run(self, task: Task, folder: Path, more: Sequence[str] = (), strike: Strike | None = None) -> Ended:
        """Run a task in a folder."""
        assert self._process.stdin is not None
        request = {
            "tool": task.tool,
            "arguments": [*task.arguments, *more],
            "folder": str(folder),
            "environment": dict(task.environment),
            "before": task.before,
            "strike": None if strike is None else asdict(strike),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        told = self._answer()
        return Ended(told["code"], told["out"], told["err"], told["struck"], tuple(told["moments"]))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Reference:
    """A run that was never stopped: its moments, and what it left."""

    def __init__(self, server: ForkServer, task: Task, folder: Path) -> None:
        start_folder(task, folder)
        ended = server.run(task, folder)
        assert ended.code == 0, f"{task.name}: {ended.error[-2000:]}"
        self.moments, self.left = ended.moments, state_of(folder)
        check_whole(folder)
        assert leftovers(folder) == []


def start_folder(task: Task, folder: Path) -> None:
    """The folder of a run, with its inputs."""
    if task.inputs is None:
        folder.mkdir(parents=True)
    else:
        shutil.copytree(task.inputs, folder)


def draw_strikes(moments: Sequence[str], generator: random.Random) -> Iterator[Strike]:
    """Strikes without end: as many at each kind of moment, and by each signal, as at any other."""
    places: dict[str, list[int]] = {}
    for number, kind in enumerate(moments, start=1):
        places.setdefault(kind, []).append(number)
    kinds = list(places)
    ways: list[tuple[int, ...] | str] = [(signal.SIGKILL,), *((each,) for each in POLITE), "write", "two"]
    generator.shuffle(kinds)
    generator.shuffle(ways)
    for number in itertools.count():
        kind = kinds[number % len(kinds)]
        way = ways[(number % len(kinds) + number // len(kinds)) % len(ways)]  # each kind meets each way
        if way == "write":
            longest = int(10 ** generator.uniform(0, 4))
            yield Strike(generator.choice(places["after open"]), (signal.SIGKILL,), bytes=longest)
        elif isinstance(way, str):
            two = (generator.choice(POLITE), generator.choice((*POLITE, signal.SIGKILL)))
            yield Strike(generator.choice(places[kind]), two, gap=generator.randint(0, 6))
        else:
            yield Strike(generator.choice(places[kind]), way)


def kill_often(
    server: ForkServer, task: Task, folder: Path, hits: int, seed: int, in_a_row: int = 2
) -> Counter[tuple[str, str, str]]:
    """Kill runs of a task until so many kills have hit; each but the last of ``in_a_row`` hits what goes on.

    Args:
        folder: an empty one.

    Returns:
        how often a kill hit, by task, moment and signal.
    """
    reference = Reference(server, task, folder / "whole")
    strikes, found = draw_strikes(reference.moments, random.Random(seed)), Counter[tuple[str, str, str]]()
    for number in itertools.count():
        if found.total() >= hits:
            return found
        work = folder / str(number)
        found += kill_and_go_on(server, task, reference, work, list(itertools.islice(strikes, in_a_row)))
        shutil.rmtree(work)
    raise AssertionError


def kill_and_go_on(
    server: ForkServer, task: Task, reference: Reference, folder: Path, strikes: Sequence[Strike]
) -> Counter[tuple[str, str, str]]:
    """Kill a run, and what goes on with it, and let the last one end as if nothing had been.

    Returns:
        how often a kill hit, by task, moment and signal.
    """
    start_folder(task, folder)
    hits: Counter[tuple[str, str, str]] = Counter()
    for strike in strikes:
        ended = server.run(task, folder, task.resume(folder), strike)
        with explained(task, strike, ended):
            if ended.struck:
                moment = "within a write" if strike.bytes is not None else ended.struck
                hits[task.name, moment, strike.name] += 1
            assert "Traceback" not in ended.error, "a traceback"
            if not ended.is_complete:
                check_end(strike, ended)
            check_whole(folder)
        if ended.is_complete:
            break
    else:
        ended = server.run(task, folder, task.resume(folder))
    with explained(task, strikes, ended):
        assert ended.is_complete, "it does not go on"
        left = state_of(folder)
        names = sorted(left.keys() ^ reference.left.keys())
        assert not names, f"files of only one of both runs: {names}"
        other = [name for name in left if left[name] != reference.left[name]]
        assert not other, f"not as in a run that was never stopped: {other}"
        assert not leftovers(folder), f"left: {leftovers(folder)}"
    return hits


@contextlib.contextmanager
def explained(task: Task, strike: object, ended: Ended) -> Iterator[None]:
    """Say what was done where an assertion fails."""
    try:
        yield
    except AssertionError as error:
        how = f"{task.name}, {strike}, at {ended.struck!r}: {error}\ncode {ended.code}"
        raise AssertionError(f"{how}\n{ended.out[-800:]}\n{ended.error[-1500:]}") from error


def check_end(strike: Strike, ended: Ended) -> None:
    """The exit code of a run that was struck, and one line for a polite signal."""
    polite = set(strike.signals) - {signal.SIGKILL} and strike.bytes is None
    expected = ({130} if polite else set()) | ({-9} if signal.SIGKILL in strike.signals else set())
    if strike.bytes is not None:
        expected = {-signal.SIGXFSZ}
    assert ended.code in expected, f"an exit code of {ended.code}"
    if ended.code == 130:
        lines = ended.error.strip().splitlines()
        assert "interrupted" in (lines or [""])[-1] or "continue with --resume" in ended.out, "no line about the end"


def leftovers(folder: Path) -> list[str]:
    """What is temporary in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if TEMPORARY.fullmatch(path.name))


def final_files(folder: Path) -> Iterator[Path]:
    """Files under final names, in no temporary folder, but for logs."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(TEMPORARY.fullmatch(part) or part.endswith(LOGS) for part in parts):
            yield path


def check_whole(folder: Path) -> None:
    """Every file under a final name can be read to its end."""
    for path in final_files(folder):
        try:
            if path.name != "log.jsonl":  # the next run drops a line that is not finished
                normalised(path)
        except Exception as error:
            raise AssertionError(f"{path.relative_to(folder)} is half-written: {error}") from error


def state_of(folder: Path) -> dict[str, str]:
    """Hash of each file under a final name, without times."""
    detectors = any(folder.rglob("last_checkpoint"))  # whose logs hold means over what one process has seen
    files = [path for path in final_files(folder) if not (detectors and path.name == "log.jsonl")]
    return {str(path.relative_to(folder)): hashlib.sha256(normalised(path)).hexdigest() for path in files}


def normalised(path: Path) -> bytes:
    """The content without times; reading it whole proves that it is not half-written."""
    if path.suffix == ".json":
        return json.dumps(_without_times(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True).encode()
    if path.suffix in (".pt", ".pth"):
        return _bytes_of(torch.load(path, weights_only=True)).encode()
    if path.suffix == ".npy":
        return np.load(path).tobytes()
    if path.suffix == ".safetensors":
        from prompt_core.files import read_safetensors

        read_safetensors(path)
    if path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            return np.asarray(image).tobytes()
    content = path.read_bytes()
    assert content or path.parent.name == "locks", "it is empty"
    return content


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(part) for key, part in value.items() if key not in VOLATILE}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def _bytes_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_bytes_of(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_bytes_of, value)) + "]"
    return repr(value)
