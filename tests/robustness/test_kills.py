"""Every task, killed at every kind of moment: what it leaves is whole, and it goes on to the same result."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import random
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prompt_core.files import write_text

if not hasattr(os, "fork"):
    pytest.skip("processes are forked", allow_module_level=True)

from ..support.kill_tasks import fetch_task, prompt_tasks, region_tasks
from ..support.kills import ForkServer, Reference, Task, draw_strikes, kill_often, leftovers, start_folder, state_of
from ..support.web_server import WebServer, content

# Kills of each task: at least 200 in all.
SLOW = {
    "prompt learning": 24,
    "method without steps": 12,
    "scores of photos": 12,
    "classifier": 10,
    "detector training": 22,
    "detector evaluation": 12,
    "detector prediction": 12,
    "segmenter training, stage 1": 18,
    "segmenter training, stage 2": 18,
    "segmenter evaluation": 12,
    "segmenter prediction": 12,
    "table": 18,
    "derived files": 12,
    "download": 12,
}
COUNTS = "POMP_KILL_COUNTS"  # in the environment: the file that the slow test writes its counts to


@pytest.fixture(scope="module")
def every_task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ForkServer, dict[str, Task]]]:
    """A server with everything imported, and the tasks but for the download."""
    for module in ("detectron2", "hotcoco", "supervision", "sklearn"):
        pytest.importorskip(module)
    inputs = tmp_path_factory.mktemp("inputs")
    tasks = {task.name: task for task in (*prompt_tasks(inputs), *region_tasks(inputs))}
    server = ForkServer(tmp_path_factory.mktemp("answers"), regions=True)
    yield server, tasks
    server.close()


def test_ten_kills(tmp_path: Path) -> None:
    for name in ("answers", "inputs"):
        (tmp_path / name).mkdir()
    tasks = {task.name: task for task in prompt_tasks(tmp_path / "inputs")}
    found: Counter[tuple[str, str, str]] = Counter()
    with contextlib.closing(ForkServer(tmp_path / "answers", regions=False)) as server:
        assert server.threads == 1, "forking is sound with one thread only"
        for name, seed, in_a_row in (("prompt learning", 5, 10), ("classifier", 2, 5)):
            found += kill_often(server, tasks[name], tmp_path / name, 5, seed, in_a_row)
    assert found.total() >= 10


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_two_hundred_kills(
    every_task: tuple[ForkServer, dict[str, Task]], tmp_path: Path, web: WebServer, name: str
) -> None:
    server, tasks = every_task
    assert {*tasks, "download"} == SLOW.keys()
    assert sum(SLOW.values()) >= 200
    task = tasks.get(name) or fetch_task(web.serve, content)
    found = kill_often(server, task, tmp_path / "runs", SLOW[name], seed=len(name))
    if COUNTS in os.environ:
        write_counts(Path(os.environ[COUNTS]), name, found)


@pytest.mark.slow
def test_two_tables_in_one_folder_at_once(every_task: tuple[ForkServer, dict[str, Task]], tmp_path: Path) -> None:
    """Each run is done by one of the two processes, and both show the whole table."""
    server, tasks = every_task
    task = tasks["table"]
    reference = Reference(server, task, tmp_path / "whole")
    (tmp_path / "answers").mkdir()
    start_folder(task, tmp_path / "shared")
    with contextlib.closing(ForkServer(tmp_path / "answers", regions=True)) as other, ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda each: each.run(task, tmp_path / "shared"), (server, other)))
    assert [each.code for each in ended] == [0, 0], ended
    texts = "".join(each.out for each in ended)
    assert texts.count("learning POMP, seed 0") == 1
    assert texts.count("POMP, seed 0 on shapes_base_novel:") == texts.count("zero-shot CLIP on shapes_base_novel:") == 1
    assert state_of(tmp_path / "shared") == reference.left
    assert leftovers(tmp_path / "shared") == []


NOT_WHOLE = """
import os
def bit_by_bit(source, target):
    content = open(source, "rb").read()
    open(target, "wb").close()
    for start in range(0, len(content), len(content) // 8 + 1):
        with open(target, "ab") as stream:
            stream.write(content[start : start + len(content) // 8 + 1])
    os.unlink(source)
os.replace = bit_by_bit
"""
NOT_SAME = "from prompt_core.training import loop; loop._seed = lambda *parts: __import__('os').getpid()"


@pytest.mark.slow
@pytest.mark.parametrize(("worse", "words"), [(NOT_WHOLE, "is half-written"), (NOT_SAME, "not as in a run")])
def test_worse_code_would_be_noticed(
    every_task: tuple[ForkServer, dict[str, Task]], tmp_path: Path, worse: str, words: str
) -> None:
    server, tasks = every_task
    task = tasks["prompt learning"]
    with pytest.raises(AssertionError, match=words):
        kill_often(server, replace(task, before=f"{task.before}\n{worse}"), tmp_path / "runs", 60, seed=0)


def test_strikes_are_of_all_kinds_at_all_moments() -> None:
    moments = [f"{when} {what}" for what in ("open", "rename", "step", "photo", "open") for when in ("before", "after")]
    drawn = list(itertools.islice(draw_strikes(moments, random.Random(0)), 6 * 8))
    alone = {(moments[strike.at - 1], strike.signals[0]) for strike in drawn if len(strike.signals) == 1}
    ways = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    assert alone >= set(itertools.product(moments, ways))
    assert len([strike for strike in drawn if strike.bytes is not None]) == 8
    assert all(moments[strike.at - 1] == "after open" for strike in drawn if strike.bytes is not None)
    assert len([strike for strike in drawn if len(strike.signals) == 2]) == 8


def write_counts(path: Path, task: str, found: Counter[tuple[str, str, str]]) -> None:
    """Add how often a task was killed and survived; where one was not, the test has ended before."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "system": platform.system()}
    command = f"{COUNTS}=docs/results/kills.json python -m pytest -m slow --timeout 0 tests/robustness/test_kills.py"
    before = json.loads(path.read_text(encoding="utf-8"))["kills"] if path.exists() else []
    kills = [entry for entry in before if entry["task"] != task]
    kills += [
        {"task": task, "moment": moment, "by": how, "count": count} for (_, moment, how), count in sorted(found.items())
    ]
    about = {"command": command, "versions": versions, "kills": sum(entry["count"] for entry in kills)}
    lines = ",\n".join(f"    {json.dumps(entry)}" for entry in kills)
    write_text(path, f'{{\n  "about": {json.dumps(about)},\n  "kills": [\n{lines}\n  ]\n}}\n')
