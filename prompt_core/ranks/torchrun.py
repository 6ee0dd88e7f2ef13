"""How a process joins its job, and how a job ends: together, with one line of one process whatever goes wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prompt_core.errors import UserError, tell_failure
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.visible import say

if TYPE_CHECKING:
    from prompt_core.ranks.process_ranks import ProcessRanks

INTERRUPTED = 130
PATIENCE = 30.0  # seconds that a process waits for the first one to fail alike
STOPPED = (
    "stopped by a signal: Ctrl-C, a scheduler, or torchrun because another process died; start the same command again, "
    "a training with --resume"
)


def started_by_torchrun(environment: Mapping[str, str]) -> bool:
    """Whether a process is one of a job, by the variables that torchrun sets."""
    return not {"TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"}.isdisjoint(environment.keys())


def check_torchrun(environment: Mapping[str, str]) -> None:
    """Check the variables that torchrun sets for each process, for they may be left over or set by hand.

    Raises:
        UserError: naming one that is missing or no number.
    """
    advice = "start the processes with torchrun, or unset its variables"
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        value = environment.get(name)
        if value is None and not name.startswith("LOCAL"):
            raise UserError(f"the environment variable {name} of torchrun is missing; {advice}")
        if value is not None and name != "MASTER_ADDR" and not (value.isascii() and value.isdigit()):
            raise UserError(f"the environment variable {name} is {value!r}, a whole number is expected; {advice}")
    if int(environment["RANK"]) >= int(environment["WORLD_SIZE"]):
        raise UserError(f"RANK is {environment['RANK']} of WORLD_SIZE {environment['WORLD_SIZE']} processes; {advice}")


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Only the first of torchrun's processes on a machine prints within: what all would say alike.

    Where another one fails, it waits to be ended with the first, and tells of it only if that does not happen.
    """
    if not started_by_torchrun(os.environ) or os.environ.get("LOCAL_RANK", "0") == "0":
        yield
        return
    try:
        with _hushed():
            yield
    except Exception as error:
        code = 2 if isinstance(error, UserError) else 1
        try:
            time.sleep(PATIENCE)
            code = tell_failure(error)
        except KeyboardInterrupt:
            pass
        leave(code)


def run_in_ranks(work: Callable[[Ranks], int], device: str, minutes: float) -> int:
    """Run ``work`` with the ranks of the job that torchrun started, or alone; returns its exit code.

    Of a job only the rank that leads prints, whatever ``work`` prints, and the first that fails. Its processes end
    here, without the interpreter's shutdown.

    Args:
        device: ``DEVICE``. With GPUs each process takes that of its local number, unless it is ``cpu``.
        minutes: how long a process waits for another one that does not answer.

    Raises:
        UserError: variables of torchrun that make no sense, fewer GPUs than processes on a machine, or processes that
            do not find each other; and whatever ``work`` raises alone.
    """
    if not started_by_torchrun(os.environ):
        return work(ALONE)
    check_torchrun(os.environ)
    with one_voice():
        ranks, store = _join(device, minutes)
    try:
        with nullcontext() if ranks.leads else _hushed():
            code = work(ranks)
        ranks.wait()
    except KeyboardInterrupt:
        code = INTERRUPTED
        if _is_first(store):
            say(STOPPED, error=True)
    except Exception as error:
        code = 2 if isinstance(error, UserError) else 1
        if _is_first(store):
            code = tell_failure(error)
    leave(code)
    return code


def leave(code: int) -> None:
    """End the process without the interpreter's shutdown, in which gloo's threads abort about one process in ten."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _join(device: str, minutes: float) -> tuple[ProcessRanks, Any]:
    """The ranks, and the store by which the processes found each other."""
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    from prompt_core.ranks.process_ranks import ProcessRanks

    backend, timeout = "gloo", timedelta(minutes=minutes)
    if device != "cpu" and torch.cuda.is_available():
        local, usable = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        here = int(os.environ.get("LOCAL_WORLD_SIZE", local + 1))
        if ":" in device or here > usable:
            raise UserError(
                f"DEVICE is {device} with {here} processes and {usable} GPUs on this machine; each takes a GPU of its "
                "own: give DEVICE cuda and start no more processes than GPUs, or give DEVICE cpu"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"the {os.environ['WORLD_SIZE']} processes of this job do not find each other at {place} "
            f"({' '.join(str(error).split())[:200]}); start all of them, with the same address and port"
        ) from error
    return ProcessRanks(), store


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _is_first(store: Any) -> bool:
    """Whether this process is the first of the job that tells of a failure; the others end because of it."""
    try:
        return bool(store.add("who tells of a failure", 1) == 1)
    except RuntimeError:  # the store has died with the process that held it
        return True
