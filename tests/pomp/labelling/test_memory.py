"""Memory does not grow with the number of photos."""

from __future__ import annotations

import pytest

from pomp_lab.benchmarks.front import measure_folder
from pomp_lab.benchmarks.harness import in_fresh_process


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "detect"])
def test_memory_is_flat(task: str) -> None:
    """Of 120 photos of 2 megapixels; tools/benchmark_front.py measures 1,000 of 12."""
    if task == "detect":
        pytest.importorskip("detectron2")
    measured = in_fresh_process(measure_folder, task, "bus,car,person", 120, 2.0, False, 1, 40)
    assert measured["resident_bytes"]["ratio"] < 1.05, measured
