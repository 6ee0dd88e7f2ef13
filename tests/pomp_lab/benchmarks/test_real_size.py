"""ImageNet-21K's real size: what the benchmark generates, and that memory does not follow the number of scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from pomp_lab.benchmarks.harness import in_fresh_process
from pomp_lab.benchmarks.real_size import RealSize, score_memory

ROOT = Path(__file__).resolve().parents[3]
Call = Callable[..., tuple[int, str, str]]


def test_sizes_are_those_of_the_release_and_a_share_is_one() -> None:
    size = RealSize()
    assert (size.classes * size.photos, size.train, size.val) == (11_056_100, 167_200, 522_500)
    part = size.part(100)
    assert part.classes * part.photos == pytest.approx(size.classes * size.photos / 100, rel=0.01)
    assert size.part(1) == size


@pytest.mark.slow
def test_a_hundredth_of_the_real_size(call_tool: Call, tmp_path: Path) -> None:
    code, out, error = call_tool("benchmark_real_size", "--share", "100", "--output", tmp_path / "real_size.json")
    assert code == 0, error
    report = json.loads((tmp_path / "real_size.json").read_text())
    stages, size = report["stages"], report["size"]
    assert stages["index"]["result"]["photos"] == size["classes"] * size["photos"] == 110_770
    assert stages["16 shots"]["result"] == {
        "photos": size["classes"] * (size["photos"] - 50),
        "chosen": 16 * size["classes"],
        "classes": size["classes"],
    }
    assert stages["epoch"]["result"] == {"photos": size["train"], "steps": size["train"] // 256, "exit_code": 0}
    assert stages["evaluation"]["result"] == {"images": size["val"], "candidates": size["classes"], "split": "val"}
    assert report["peak_gib"]["met"]
    assert "largest peak" in out


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_scores() -> None:
    few, many = (in_fresh_process(score_memory, images, 1045)["extra_bytes"] for images in (10_450, 104_500))
    scores = 4 * 1045 * (104_500 - 10_450)  # bytes that more scores would take
    assert many - few < 0.02 * scores


def test_the_documented_table_is_the_measured_one() -> None:
    report = json.loads((ROOT / "docs/results/real_size.json").read_text())
    page = (ROOT / "datasets/README.md").read_text()
    assert report["size"] == {**asdict(RealSize()), "train": 167_200, "val": 522_500}
    for name, stage in report["stages"].items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} | "))
        beside = stage["beside"].removeprefix("the time of ")
        figures = f"{stage['seconds']:.0f} | {stage['ratio']:.1f} x {beside} | {stage['peak_bytes'] / 2**30:.1f} |"
        assert row.endswith(f"| {figures}")
    few, many = report["scorer"]["extra_bytes"].values()
    assert f"{many / 1e6:.0f} MB" == f"{few / 1e6:.0f} MB" == "92 MB"
    assert report["peak_gib"]["met"]
