"""The display of a run: a progress bar, one line per epoch without a terminal, TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_core.training.loop import LearningState, StepReport
from prompt_core.training.step import LearningSettings

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode


@contextmanager
def display(settings: LearningSettings, state: LearningState) -> Iterator[Any]:
    """Progress with loss, accuracy, images per second and remaining time; one line per epoch without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.3f}"),
        TextColumn("{task.fields[speed]:.0f} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, epoch=state.epoch + 1, loss=0.0, accuracy=0.0, speed=0.0)
        started, images = time.monotonic(), 0

        def show(report: StepReport) -> None:
            nonlocal images
            images += report.images
            speed = images / max(time.monotonic() - started, 1e-9)
            progress.update(
                task,
                total=report.steps_per_epoch * settings.epochs,
                completed=report.epoch * report.steps_per_epoch + report.step,
                epoch=f"{report.epoch + 1}/{settings.epochs}",
                loss=report.loss,
                accuracy=report.accuracy,
                speed=speed,
            )
            if report.epoch_done and not console.is_terminal:
                console.print(
                    f"epoch {report.epoch + 1}/{settings.epochs}  loss {report.loss:.4f}  "
                    f"accuracy {report.accuracy:.4f}  {speed:.0f} images/s",
                    highlight=False,
                )

        yield show


@contextmanager
def tensorboard(cfg: CfgNode, folder: Path) -> Iterator[Any]:
    """A summary writer in ``folder``/tensorboard, or None where the configuration does not ask for one."""
    if not cfg.LOG.TENSORBOARD:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    try:
        yield writer
    finally:
        writer.close()
