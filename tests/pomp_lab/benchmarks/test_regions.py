"""The benchmark of regions measures what it says: the same regions, all three ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from pomp_lab.benchmarks.regions import Regions, disjoint_regions, predicted_regions, region_costs
from pomp_seg import set_classes
from prompt_core.clip import Clip


def test_disjoint_regions_have_no_pixel_in_common() -> None:
    regions = disjoint_regions(60, 90, 100)
    assert regions.masks.shape == (100, 60, 90)
    assert bool((regions.masks.flatten(1).sum(dim=1) > 0).all())
    assert int(regions.masks.sum(dim=0).max()) == 1


def test_costs_of_the_same_regions(tiny_clip: Clip) -> None:
    masks = torch.zeros(6, 40, 50)
    masks[0, :10], masks[1, :10], masks[2, 20:] = 1, 1, 1  # two alike, three empty
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    costs = region_costs(tiny_clip, [Regions(image, masks)], 0.5, repeats=2)
    assert (costs["proposals"], costs["not_empty"], costs["distinct"]) == (6, 3, 2)
    assert costs["largest_difference"] < 1e-5
    for way in ("crops", "single_pass"):
        assert len(costs["faster"][way]["all"]) == 2
        assert costs["faster"][way]["min"] > 0


def test_regions_are_those_that_clip_sees(tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny().eval()
    set_classes(model, ["cat", "sky"])
    seen: list[torch.Tensor] = []
    adapter = model.clip_adapter
    plain = adapter.region_logits
    monkeypatch.setattr(
        adapter, "region_logits", lambda image, masks, names: seen.append(masks) or plain(image, masks, names)
    )
    example = {"image": torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)}
    with torch.no_grad():
        before = model([example])[0]["sem_seg"]
    regions = predicted_regions(model, [example])
    assert torch.equal(regions[0].masks, seen[0])
    assert torch.equal(regions[0].image, example["image"])
    with torch.no_grad():
        assert torch.equal(model([example])[0]["sem_seg"], before)  # put back


def test_an_unknown_data_set_is_one_line(call_tool: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    config = Path(__file__).resolve().parents[3] / "configs/mini/coco_seg.yaml"
    options = ["--config", config, "--weights", "w.pth", "--output", "out.json", "--threads", "1"]
    code, _, error = call_tool("benchmark_regions", *options, "--dataset", "coco_smal_sem_seg_val")
    assert (code, len(error.splitlines())) == (2, 1)
    assert "data set 'coco_smal_sem_seg_val' is not registered" in error
    assert not (tmp_path / "out.json").exists()
