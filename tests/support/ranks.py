"""Some work in several ranks: processes forked from this one, joined by gloo."""

from __future__ import annotations

import os
import pickle
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from prompt_core.ranks.process_ranks import ProcessRanks
from prompt_core.ranks.ranks import Ranks

T = TypeVar("T")


def in_ranks(size: int, work: Callable[[Ranks], T], seconds: float = 120.0) -> list[T]:
    """What ``work`` returns in each rank; it is pickled. An error in one of them is raised here as an AssertionError.

    Args:
        seconds: until all of them are killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipes, children = [], []
        for rank in range(size):
            ours, theirs = os.pipe()
            child = os.fork()
            if child == 0:
                _in_child(Path(folder) / "store", rank, size, work, theirs)
            os.close(theirs)
            pipes.append(ours)
            children.append(child)
        try:
            results = _read(pipes, time.monotonic() + seconds)
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            for pipe in pipes:
                os.close(pipe)
    for rank, (fine, value) in enumerate(results):
        assert fine, f"rank {rank} of {size}: {value}"
    return [value for _, value in results]


def _in_child(store: Path, rank: int, size: int, work: Callable[[Ranks], Any], pipe: int) -> NoReturn:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)  # the threads of the process that it was forked from are not here, and would be waited for
    try:
        group: dict[str, Any] = {"rank": rank, "world_size": size, "timeout": timedelta(seconds=60)}
        dist.init_process_group("gloo", init_method=f"file://{store}", **group)
        ranks = ProcessRanks()
        answer = (True, work(ranks))
        ranks.wait()
    except BaseException:
        answer = (False, traceback.format_exc())
    try:
        with open(pipe, "wb") as stream:
            stream.write(pickle.dumps(answer))
        signal.pause()  # the parent ends it, once it has read what all have written
    finally:
        os._exit(1)


def _read(pipes: list[int], until: float) -> list[tuple[bool, Any]]:
    texts = dict.fromkeys(pipes, b"")
    waiting = set(pipes)
    while waiting:
        ready = select.select(waiting, [], [], max(0.0, until - time.monotonic()))[0]
        assert ready, f"{len(waiting)} of {len(pipes)} ranks did not end in time"
        for pipe in ready:
            part = os.read(pipe, 1 << 20)
            texts[pipe] += part
            if not part:
                waiting.discard(pipe)
    return [pickle.loads(text) if text else (False, "it died") for text in texts.values()]
