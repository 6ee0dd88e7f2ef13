"""Benchmarks without the fresh processes that their measurements are made in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measurements run here: a process of torch takes seconds to start."""
    from pomp_lab.benchmarks import harness

    def measure_here(measure: harness.Measure, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(measure(**json.loads(json.dumps(dict(arguments))))))

    threads = torch.get_num_threads()
    monkeypatch.setattr(harness, "in_fresh_process", measure_here)
    yield
    torch.set_num_threads(threads)
