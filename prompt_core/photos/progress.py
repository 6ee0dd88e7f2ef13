"""How far a loop over photos is: a bar with rate and time left on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from prompt_core.visible import say, visible

LINE_SECONDS = 30.0


@contextlib.contextmanager
def showing_progress(description: str, every: float = LINE_SECONDS) -> Iterator[Callable[[int, int], None]]:
    """A function of (photos done, of how many), to be called after each photo; it writes to standard error.

    Args:
        description: what is done, before the bar.
        every: seconds between plain lines; what takes less time is told nothing about.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(every)
        return
    text = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[rate]}", markup=False)
    columns = (text[0], BarColumn(), MofNCompleteColumn(), text[1], TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, progress.add_task(visible(description), total=None, rate=""))


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task, self._began = progress, task, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        seconds = time.monotonic() - self._began
        rate = f"{done / seconds:.1f}/s" if seconds > 0 else ""
        self._progress.update(self._task, completed=done, total=total, rate=rate)


class _PlainLines:
    def __init__(self, every: float) -> None:
        self._every, self._began = every, time.monotonic()
        self._last = self._began

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._last >= self._every:
            self._last = now
            say(plain_line(done, total, now - self._began), error=True)


def plain_line(done: int, total: int, seconds: float) -> str:
    """Such as ``120 of 1,000 photos, 4.1 per second, 3 min 35 s left``."""
    left = round((total - done) * seconds / done)
    hours, minutes = left // 3600, left % 3600 // 60
    shown = f"{hours} h {minutes} min" if hours else f"{minutes} min {left % 60} s" if minutes else f"{left} s"
    return f"{done:,} of {total:,} photos, {done / seconds:.1f} per second, {shown} left"
