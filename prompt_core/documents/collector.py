"""Python's garbage collector, kept from work that finds nothing."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """For code that makes many small objects which stay, such as the tables of 21,843 names; also as a decorator.

    The collector would look through all objects of the process again and again: with a model in memory that takes most
    of the time of making the tables.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
