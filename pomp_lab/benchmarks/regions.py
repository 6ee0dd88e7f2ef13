"""The cost of classifying regions: one by one, distinct ones in batches, all from one pass over the image."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pomp_lab.benchmarks.harness import spread, timed
from pomp_seg.regions.crops import distinct_masks
from pomp_seg.regions.encode import RegionEncoder
from pomp_seg.regions.single_pass import SinglePassEncoder
from prompt_core.clip import Clip

REFERENCE, CROPS, SINGLE_PASS = "one_by_one", "crops", "single_pass"


@dataclass(frozen=True)
class Regions:
    """An image (3, H, W) in 0..255 and the mask probabilities (Q, H, W) of its proposals."""

    image: Tensor
    masks: Tensor


@torch.no_grad()
def predicted_regions(model: Any, examples: Sequence[dict[str, Any]]) -> list[Regions]:
    """The regions that a :class:`pomp_seg.models.mask_former.ZeroShotMaskFormer` would hand to CLIP."""
    proposed: list[Regions] = []
    scores = model.scores

    def keep(example: dict[str, Any], logits: Tensor, masks: Tensor) -> Tensor:
        proposed.append(Regions(example["image"].to(masks.device), masks))
        return logits[:, :-1]

    model.eval().scores = keep
    try:
        for example in examples:
            model([example])
    finally:
        model.scores = scores
    return proposed


def disjoint_regions(height: int, width: int, count: int, seed: int = 0, device: str = "cpu") -> Regions:
    """A random image and ``count`` disjoint regions: the worst case, none empty and none repeated."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    columns = max(int((count * width / height) ** 0.5), 1)
    rows = -(-count // columns)
    row = torch.arange(height) * rows // height
    column = torch.arange(width) * columns // width
    cell = row[:, None] * columns + column  # (H, W)
    masks = (cell[None] == torch.arange(count)[:, None, None]).float()
    return Regions(image.to(device), masks.to(device))


def region_costs(
    clip: Clip, regions: Sequence[Regions], threshold: float, repeats: int = 3, batch_size: int = 32
) -> dict[str, Any]:
    """Times of the three ways on the same regions, as ratios of one run; the ways take turns.

    Returns:
        ``faster``: how many times each is faster than one by one, median and range over ``repeats``; the mean number of
        proposals, of those that are not empty and of those that are distinct; and ``largest_difference`` between the
        features of crops in batches and one by one.
    """
    encoder = RegionEncoder(clip, threshold=threshold, batch_size=batch_size)
    ways: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
        REFERENCE: encoder.one_by_one,
        CROPS: encoder,
        SINGLE_PASS: SinglePassEncoder(clip, threshold),
    }
    difference = 0.0
    for image in regions[:2]:  # also a warm-up
        plain = ways[REFERENCE](image.image, image.masks)[0]
        difference = max(difference, _largest(ways[CROPS](image.image, image.masks)[0], plain))
        ways[SINGLE_PASS](image.image, image.masks)
    ratios: dict[str, list[float]] = {CROPS: [], SINGLE_PASS: []}
    for _ in range(repeats):
        seconds = {name: _seconds(way, regions) for name, way in ways.items()}
        for name, values in ratios.items():
            values.append(seconds[REFERENCE] / seconds[name])
    counts = [_counts(image, threshold) for image in regions]
    return {
        "images": len(regions),
        "proposals": statistics.fmean(count[0] for count in counts),
        "not_empty": statistics.fmean(count[1] for count in counts),
        "distinct": statistics.fmean(count[2] for count in counts),
        "faster": {name: spread(values) for name, values in ratios.items()},
        "largest_difference": difference,
    }


def _largest(features: Tensor, expected: Tensor) -> float:
    return float((features - expected).abs().max()) if features.numel() else 0.0


def _seconds(way: Callable[[Tensor, Tensor], Any], regions: Sequence[Regions]) -> float:
    def work() -> None:
        for image in regions:
            way(image.image, image.masks)

    return timed(work)[1]


def _counts(regions: Regions, threshold: float) -> tuple[int, int, int]:
    binary = regions.masks > threshold
    inside = binary[binary.flatten(1).any(dim=1)]
    return len(binary), len(inside), len(distinct_masks(inside)[0]) if len(inside) else 0
