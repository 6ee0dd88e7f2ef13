"""Signals that ask a run to end: Ctrl-C, SIGTERM of schedulers, SIGHUP of a terminal that goes away."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def handling(numbers: Sequence[int], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Let ``handler`` take signals within; those that are ignored stay so, as SIGHUP is under nohup.

    Outside of the main thread nothing is handled: the caller of the thread does that.
    """
    before = {}
    try:
        with contextlib.suppress(ValueError):
            for number in numbers:
                if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGINT:
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt within, so that what is half done is tidied away.

    :func:`prompt_core.command_line.asked_to_stop` takes them over where a state is saved first.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handling(ENDING, interrupt):
        yield
