"""The same work on the CPU and on the stand-in for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .stand_in_device import NAME, StandIn

# How often the host waited at each place, by what was done.
Waits = dict[str, dict[str, int]]
# Device and where to count: the results by name.
Work = Callable[[str, Waits], Mapping[str, Any]]


def on_both(work: Work) -> Waits:
    """Raises AssertionError where the stand-in's results are not the CPU's; otherwise where the host waited.

    They may differ by rounding: torch computes some products in other ways where a tensor is not on the CPU.
    """
    expected: Mapping[str, Any] = {}
    waits: Waits = {}
    # The CPU's own attention rounds otherwise than the plain products that other devices have.
    with sdpa_kernel(SDPBackend.MATH):
        expected = work("cpu", {})
        with StandIn():
            results = work(NAME, waits)
            assert results.keys() == expected.keys()
            for name, value in expected.items():
                own, other = (torch.as_tensor(each).detach().cpu() for each in (results[name], value))
                torch.testing.assert_close(
                    own, other, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name} {text}"
                )
    return waits


@contextmanager
def counted(device: str, waits: Waits, what: str) -> Iterator[None]:
    """Counts under a name the waits within it."""
    if device == NAME:
        StandIn.now.waits.clear()
    yield
    if device == NAME:
        note(waits, what)


def note(waits: Waits, what: str) -> None:
    """Write down under a name the waits since the last time."""
    for wait, count in sorted(StandIn.now.waits.items()):
        places = waits.setdefault(what, {})
        places[str(wait)] = places.get(str(wait), 0) + count
    StandIn.now.waits.clear()
