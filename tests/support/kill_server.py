"""A process that has imported everything heavy once and forks a child for each run of a tool, which may stop itself.

Reads a request a line from standard input and answers with a line. A request is a JSON object::

    {"tool": "tools/pretrain_prompt", "arguments": [...], "folder": "/tmp/work", "environment": {...},
     "before": "Python code", "strike": null or {"at": 17, "signals": [15, 2], "gap": 3, "bytes": null}}

Moments of a run are numbered: before and after each file operation below its folder, each training step, each photo.
At the one that a strike names the child sends itself the signals, the second one ``gap`` moments later; with ``bytes``
the kernel ends it instead, in the write that makes a file longer than that.

Forking is sound because this process never computes: it has one thread, and OpenMP is held to one as well.
"""

from __future__ import annotations

import builtins
import importlib
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.forked import Limits, run_forked
from tests.support.tools import tool_main

PROMPTS = ("open_clip", "safetensors.torch", "rich.progress", "prompt_core.training.recipe")
PROMPTS += ("prompt_core.classifier", "prompt_core.evaluation.evaluate")
REGIONS = ("detectron2.engine", "hotcoco", "pomp_det.photo_detections", "pomp_det.predictor", "pomp_det.task")
REGIONS += ("prompt_core.photos.photo_loop", "pomp_engine.processes", "pomp_engine.run", "pomp_seg.predict_photos")
REGIONS += ("pomp_seg.predictor", "pomp_seg.task", "pomp_lab.tables.command", "pomp_lab.shapes.labels")
REGIONS += ("torch.utils.tensorboard", "sklearn.linear_model", "supervision")


class Moments:
    """Counts the moments of a run, and strikes at one.

    Args:
        folder: of the run; operations on other files do not count.
        strike: None to list the moments.
        report: an open file that is told what happened.
    """

    def __init__(self, folder: str, strike: dict[str, Any] | None, report: int) -> None:
        self._folder, self._strike, self._report = folder, strike, report
        self._count = 0
        self._listed: list[str] = []

    def pass_by(self, kind: str) -> None:
        """A moment, such as ``before rename``."""
        self._count += 1
        if self._strike is None:
            self._listed.append(kind)
            return
        at, signals = self._strike["at"], self._strike["signals"]
        if self._count == at:
            os.write(self._report, json.dumps({"struck": kind}).encode() + b"\n")
            if self._strike["bytes"] is not None:
                import resource

                _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (self._strike["bytes"], most))
                return
            os.kill(os.getpid(), signals[0])
        if len(signals) > 1 and self._count == at + self._strike["gap"]:
            os.kill(os.getpid(), signals[1])

    def tell(self) -> None:
        """Write what was passed by into the report."""
        os.write(self._report, json.dumps({"moments": self._listed}).encode() + b"\n")

    def watch(self) -> None:
        """Watch this process from now on."""
        import torch.optim.optimizer as optimizers
        from PIL import Image

        def opens_to_write(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> bool:
            return bool(set(mode) & set("wax+")) and self._is_ours(path)

        def makes_to_write(path: Any, flags: int, *arguments: Any, **options: Any) -> bool:
            return bool(flags & (os.O_WRONLY | os.O_RDWR)) and self._is_ours(path, **options)

        def always(*arguments: Any, **options: Any) -> bool:
            return True

        builtins.open = io.open = self._around("open", builtins.open, opens_to_write)  # type: ignore[assignment]
        os.open = self._around("open", os.open, makes_to_write)
        os.fsync = self._around("fsync", os.fsync, always)
        kinds = {"rename": "rename", "replace": "rename", "unlink": "unlink", "remove": "unlink", "rmdir": "unlink"}
        for name, kind in (kinds | {"mkdir": "mkdir"}).items():
            setattr(os, name, self._around(kind, getattr(os, name), self._is_ours))
        Image.open = self._around("photo", Image.open, always)
        optimizers.register_optimizer_step_pre_hook(lambda *arguments: self.pass_by("before step"))
        optimizers.register_optimizer_step_post_hook(lambda *arguments: self.pass_by("after step"))

    def _around(self, kind: str, work: Callable[..., Any], concerns: Callable[..., bool]) -> Callable[..., Any]:
        """``work`` with a moment before and one after it, where it concerns the run's files."""

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if not concerns(*arguments, **options):
                return work(*arguments, **options)
            self.pass_by(f"before {kind}")
            result = work(*arguments, **options)
            self.pass_by(f"after {kind}")
            return result

        return wrapped

    def _is_ours(self, path: Any, *arguments: Any, **options: Any) -> bool:
        """Whether a path is in the folder of the run."""
        if isinstance(path, int):
            return False
        return options.get("dir_fd") is not None or os.path.abspath(os.fsdecode(path)).startswith(self._folder)  # noqa: PTH100


def run_watched(request: dict[str, Any], report: int) -> int | None:
    """What a child does: the tool's ``main``, with its moments counted."""
    if request["strike"] is not None and request["strike"]["bytes"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and gets an error instead
    warnings.simplefilter("ignore", ResourceWarning)  # as in a new Python
    exec(request["before"], {})
    main = tool_main(request["tool"])
    moments = Moments(request["folder"], request["strike"], report)
    moments.watch()
    code = main()
    moments.tell()
    return code


def answer(request: dict[str, Any], answers: Path) -> dict[str, Any]:
    """Run a tool in a child; how it ended."""
    report = answers / "report"
    handle = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        outcome = run_forked(
            partial(run_watched, request, handle),
            [f"{request['tool']}.py", *request["arguments"]],
            Path(request["folder"]),
            answers,
            request["environment"],
            Limits(cpu=120),
        )
    finally:
        os.close(handle)
    told: dict[str, Any] = {"struck": "", "moments": []}
    for line in report.read_text().splitlines():
        told |= json.loads(line)
    return asdict(outcome) | told


def serve(answers: Path) -> None:
    """Answer requests until the input ends."""
    import torch

    torch.set_num_threads(1)
    tasks = Path("/proc/self/task")
    print(json.dumps({"threads": len(list(tasks.iterdir())) if tasks.is_dir() else 1}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), answers)), flush=True)


if __name__ == "__main__":
    for module in PROMPTS + (REGIONS if "regions" in sys.argv else ()):
        importlib.import_module(module)
    serve(Path(sys.argv[1]))
