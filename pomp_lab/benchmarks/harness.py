"""What benchmarks share: fresh processes in turns, time and memory, the spread of repeats, the machine.

Memory needs a fresh process: an allocator keeps freed pages, so a second piece of work in the same process would find
its memory already resident and seem to need none.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import math
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from prompt_core.command_line import whole_number
from prompt_core.errors import UserError
from prompt_core.ranges import COUNT
from prompt_core.visible import say

PAGE = 4096  # bytes; less memory than this cannot be distinguished from none

# What was measured: ``seconds``, and perhaps ``extra_bytes`` and others.
Measured = dict[str, Any]


def take_turns(
    measure: Callable[..., Measured],
    jobs: Mapping[str, Sequence[Any]],
    repeats: int,
    quantities: Sequence[str],
    failed: dict[str, str] | None = None,
) -> dict[str, Measured]:
    """Measure each job ``repeats`` times, in turns, so that a slow phase of the machine affects all of them.

    Args:
        measure: a module-level function, called in a process of its own for each measurement.
        jobs: its arguments for each job.
        quantities: what the :func:`spread` is given of.
        failed: gets the reason for each job whose process fails, which is then left out; None raises the error.

    Returns:
        for each job what its last measurement returned, with the spreads over all turns.

    Raises:
        UserError: a process failed.
    """
    measured: dict[str, list[Measured]] = {name: [] for name in jobs}
    for turn in range(repeats):
        for name, arguments in jobs.items():
            if failed and name in failed:
                continue
            try:
                result = in_fresh_process(measure, *arguments)
            except UserError as error:
                if failed is None:
                    raise UserError(f"{name} could not be measured: {error}") from None
                failed[name] = str(error)
                say(f"  {name}: not measured, {error}", error=True)
                continue
            measured[name].append(result)
            memory = f", {result['extra_bytes'] / 2**20:.0f} MiB" if "extra_bytes" in result else ""
            say(f"  {name}, {turn + 1} of {repeats}: {result['seconds']:.3g} s{memory}", error=True)
    return {
        name: {**turns[-1], **{quantity: spread([turn[quantity] for turn in turns]) for quantity in quantities}}
        for name, turns in measured.items()
        if turns
    }


def in_fresh_process(measure: Callable[..., Measured], *arguments: Any) -> Measured:
    """What ``measure(*arguments)`` returns in a process that has done nothing else, and prints nothing.

    Raises:
        UserError: the process failed.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context, initializer=_silence) as pool:
            return pool.submit(measure, *arguments).result()
    except UserError:
        raise
    except BrokenProcessPool as error:
        raise UserError("its process was killed; there may be too little memory") from error
    except Exception as error:
        raise UserError(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error


def _silence() -> None:
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, smallest, largest and all values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": list(values)}


def measure_memory(work: Callable[[], Any], warm: bool = False, long: float = math.inf) -> dict[str, Any]:
    """``seconds`` of a call, the increase of resident memory, its peak, and the ``result``.

    Args:
        warm: time a second call; the memory is that of the first.
        long: seconds of a first call that need no second one.

    Raises:
        UserError: where the system does not report the peak.
    """
    gc.collect()
    try:
        # The work would use freed pages that are still resident without their being counted.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # peak := present
    except (OSError, AttributeError) as error:
        raise UserError(f"memory is measured through Linux's /proc and glibc; run it there ({error})") from error
    before = _status_bytes("VmRSS")
    result, seconds = timed(work)
    peak = _status_bytes("VmHWM")
    if warm and seconds < long:
        result, seconds = timed(work)
    return {"seconds": seconds, "extra_bytes": max(peak - before, PAGE), "peak_bytes": peak, "result": result}


def measure_gpu_memory(work: Callable[[], Any]) -> dict[str, Any]:
    """The same as :func:`measure_memory` of a warm call, by torch's statistics of GPU memory."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = work()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    return {"seconds": timed(work)[1], "extra_bytes": peak - before, "peak_bytes": peak, "result": result}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds, with those that a GPU goes on after it."""
    started = time.perf_counter()
    result = work()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started


def machine_description(*packages: str) -> dict[str, Any]:
    """What times depend on: processor, cores, load, versions.

    Args:
        packages: packages whose versions are added to the usual ones.

    Returns:
        ``cpu``, ``cores``, ``load_average`` (of the last minute; None where it is unknown) and ``versions``.
    """
    from prompt_core.evaluation.protocol import package_versions, processor_name

    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": package_versions() | {package: _version(package) for package in packages},
    }


def add_option(
    parser: argparse.ArgumentParser,
    name: str,
    default: Any,
    text: str,
    kind: Callable[[str], Any] | None = None,
    metavar: str = "N",
) -> None:
    """An option whose help ends with its default; None stands for all. By default it takes a whole number above 0."""
    shown = "all" if default is None else default
    help_text = f"{text} (default: {shown})"
    parser.add_argument(name, type=kind or positive, default=default, metavar=metavar, help=help_text)


positive = whole_number(COUNT)


def positives(text: str) -> list[int]:
    """Several of them, joined by commas."""
    return [positive(part) for part in text.split(",")]


def target(measured: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """A number with its bound, and whether the bound is met."""
    wanted = f"at least {low:g}" if high is None else f"at most {high:g}"
    met = (low is None or measured >= low) and (high is None or measured <= high)
    return {"measured": measured, "wanted": wanted, "met": met}


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Detectron2 comes under several distribution names; once imported, it has a version attribute.
        return str(getattr(sys.modules.get(package), "__version__", "absent"))
