"""One process, one per GPU, or several on the CPU; processes started by torchrun join its group."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import launch
from detectron2.utils import comm

from prompt_core.errors import UserError
from prompt_core.ranks.torchrun import check_torchrun, leave, started_by_torchrun
from prompt_core.runs.signals import ENDING, ending_like_ctrl_c, handling


def run_processes(main: Callable[..., int], gpus: int | None, processes: int, arguments: tuple[Any, ...]) -> int:
    """Run ``main(*arguments)`` in every process of a run and return its exit code.

    Under torchrun the process joins the group that torchrun describes, and both numbers are ignored.

    Args:
        gpus: number of GPUs; None uses one if there is one, 0 runs on the CPU.
        processes: number of processes on the CPU, which communicate by gloo.

    Raises:
        UserError: torchrun's variables that are incomplete, more GPUs than there are, several processes without
            ``gpus=0``, a process that was killed, or whatever ``main`` raises.
    """
    if (gpus is not None and gpus < 0) or processes < 1:
        raise UserError(f"--num-gpus {gpus}, --num-processes {processes}: expected 0 or more, and 1 or more")
    if started_by_torchrun(os.environ):
        check_torchrun(os.environ)
        return _join_torchrun(main, arguments)
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus is not None and gpus > usable:
        raise UserError(f"--num-gpus is {gpus}, but {usable} are usable here; --num-gpus 0 runs on the CPU")
    count = gpus or 1
    if processes > 1:
        if gpus or (gpus is None and usable):
            raise UserError("--num-processes is for the CPU; add --num-gpus 0, or use --num-gpus N alone")
        count = processes
    if gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the processes started below inherit it, and use gloo
    if count == 1:
        return main(*arguments)
    return _start(main, count, arguments)


def _start(main: Callable[..., int], count: int, arguments: tuple[Any, ...]) -> int:
    asked: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        asked.append(number)
        for child in multiprocessing.active_children():
            child.terminate()

    with tempfile.TemporaryDirectory() as folder:
        try:
            with handling(ENDING, pass_on):
                launch(_worker, count, dist_url="auto", args=(main, folder, arguments))
        except torch.multiprocessing.ProcessExitedException as stopped:
            if asked or stopped.exit_code == 130:
                raise KeyboardInterrupt from None
            messages = sorted(Path(folder).iterdir(), key=lambda file: file.stat().st_mtime)
            if stopped.exit_code == 2 and messages:
                raise UserError(messages[0].read_text(encoding="utf-8")) from None
            if stopped.signal_name:
                raise UserError(
                    f"process {stopped.error_index} of {count} was killed by {stopped.signal_name}, perhaps for its "
                    "memory; the others were stopped; a training goes on with --resume"
                ) from None
            raise
    return 0


def _worker(main: Callable[..., int], folder: str, arguments: tuple[Any, ...]) -> None:
    """What a started process does; when one exits with a nonzero code, the others are stopped."""
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // comm.get_local_size()))
    try:
        with ending_like_ctrl_c():
            code = main(*arguments)
    except UserError as error:
        (Path(folder) / str(comm.get_rank())).write_text(str(error), encoding="utf-8")
        leave(2)
    except KeyboardInterrupt:
        leave(130)
    _leave_together(code)


def _join_torchrun(main: Callable[..., int], arguments: tuple[Any, ...]) -> int:
    local = int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(local)
    torch.distributed.init_process_group("nccl" if gpu else "gloo")
    comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    code = main(*arguments)
    _leave_together(code)
    return code


def _leave_together(code: int) -> None:
    """End a process of a group once all the others have got here too."""
    comm.synchronize()
    torch.distributed.destroy_process_group()
    leave(code)
