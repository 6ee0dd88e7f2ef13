"""Benchmarks without the fresh processes that their measurements are made in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measurements run here: a process of torch takes seconds to start."""
    from pomp_lab.benchmarks import harness

    def measure_here(measure: Callable[..., harness.Measured], *arguments: Any) -> harness.Measured:
        return measure(*arguments)

    threads = torch.get_num_threads()
    monkeypatch.setattr(harness, "in_fresh_process", measure_here)
    yield
    torch.set_num_threads(threads)
