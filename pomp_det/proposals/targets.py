"""Training targets of the class-agnostic CenterNet: heat map, distances to the box sides, positive cells.

Pure functions (CenterNet2, arXiv 2103.07461, and its published code). All boxes are x1, y1, x2, y2 in pixels of the
padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

NO_BOX = 1e8  # a location without a box has regression targets -NO_BOX / stride


class Grid(NamedTuple):
    """The locations of all levels, one level after the other, each by rows.

    Attributes:
        points: (L, 2) cell centres x, y in pixels.
        strides: (L,) pixels per cell.
        ranges: (L, 2) smallest and largest half box diagonal that the location's level takes, inclusive.
        sizes: cells of each level.
        widths: cells in one row of each level.
    """

    points: Tensor
    strides: Tensor
    ranges: Tensor
    sizes: list[int]
    widths: list[int]


class Targets(NamedTuple):
    """Targets of a batch; M locations in the order level, image, row, column.

    Attributes:
        heatmap: (M,) in 0..1.
        sides: (M, 4) left, top, right, bottom distances in strides; ``-NO_BOX / stride`` where there is no box.
        positives: (P,) indices into M: the centre cell of each object on each level that takes it.
    """

    heatmap: Tensor
    sides: Tensor
    positives: Tensor


def level_points(height: int, width: int, stride: int, device: torch.device | str) -> Tensor:
    """Centres (height * width, 2) of a level's cells, by rows: ``stride * i + stride // 2``."""
    x = torch.arange(width, device=device, dtype=torch.float32) * stride + stride // 2
    y = torch.arange(height, device=device, dtype=torch.float32) * stride + stride // 2
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x, grid_y), dim=-1).reshape(-1, 2)


def make_grid(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    ranges: Sequence[Sequence[float]],
    device: torch.device | str,
) -> Grid:
    """The locations of feature maps of the given heights and widths."""
    sizes = [height * width for height, width in shapes]
    points = [level_points(*shape, stride, device) for shape, stride in zip(shapes, strides, strict=True)]

    def spread(values: Sequence[float]) -> Tensor:
        """(L,) the value of each level at each of its locations, filled in on the device."""
        return torch.cat(
            [torch.full((size,), float(value), device=device) for size, value in zip(sizes, values, strict=True)]
        )

    return Grid(
        torch.cat(points),
        spread(strides),
        torch.stack([spread([level[side] for level in ranges]) for side in (0, 1)], dim=1),
        sizes,
        [width for _, width in shapes],
    )


def image_targets(grid: Grid, boxes: Tensor, min_overlap: float, min_radius: float) -> tuple[Tensor, Tensor]:
    """Heat map (L,) and box sides (L, 4), in strides, of one image with ``boxes`` (N, 4).

    Heat is the largest over the boxes of ``exp(-d**2 / r**2)``, d the distance to the box centre and
    ``r**2 = max(2 * delta**2 * area, min_radius**2)`` with ``delta = (1 - o) / (1 + o)`` of the smallest overlap o; it
    is 1 in the box's own cell and 0 below 1e-4. A location regresses a box when it is one of the 3 x 3 cells round the
    box's own cell, inside the box, and its level takes the box's size; of several boxes the one with the smallest
    ``d**2 / r**2`` is taken.
    """
    length = len(grid.points)
    strides = grid.strides[:, None]  # (L, 1)
    if len(boxes) == 0:
        return boxes.new_zeros(length), boxes.new_full((length, 4), -NO_BOX) / strides
    x, y = grid.points[:, :1], grid.points[:, 1:]  # (L, 1)
    sides = torch.stack((x - boxes[:, 0], y - boxes[:, 1], boxes[:, 2] - x, boxes[:, 3] - y), dim=2)  # (L, N, 4)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # (N, 2)
    cell = (centres[None] / strides[:, :, None]).long() * strides[:, :, None] + strides[:, :, None] / 2  # (L, N, 2)
    offset = grid.points[:, None] - cell  # (L, N, 2)
    distance = (grid.points[:, None] - centres).square().sum(dim=2)  # (L, N)
    distance = distance.masked_fill((offset == 0).all(dim=2), 0)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    delta = (1 - min_overlap) / (1 + min_overlap)
    weighted = distance / (2 * delta**2 * area).clamp(min=min_radius**2)  # (L, N)
    heatmap = torch.exp(-weighted.min(dim=1).values)
    heatmap = torch.where(heatmap < 1e-4, torch.zeros_like(heatmap), heatmap)

    near = (offset.abs() <= strides[:, :, None]).all(dim=2) & (sides.min(dim=2).values > 0)
    usable = near & _takes(boxes, grid.ranges)
    best, which = weighted.masked_fill(~usable, NO_BOX).min(dim=1)
    chosen = sides[torch.arange(length, device=boxes.device), which]  # (L, 4)
    chosen = chosen.masked_fill((best == NO_BOX)[:, None], -NO_BOX)
    return heatmap, chosen / strides


def batch_targets(grid: Grid, boxes: Sequence[Tensor], min_overlap: float, min_radius: float) -> Targets:
    """Targets of a batch of images, each with its ``boxes`` (N_i, 4)."""
    images = [image_targets(grid, image_boxes, min_overlap, min_radius) for image_boxes in boxes]
    heatmaps = [heatmap.split(grid.sizes) for heatmap, _ in images]
    sides = [side.split(grid.sizes) for _, side in images]
    levels = range(len(grid.sizes))
    return Targets(
        torch.cat([heatmap[level] for level in levels for heatmap in heatmaps]),
        torch.cat([side[level] for level in levels for side in sides]),
        _own_cells(grid, boxes),
    )


def _own_cells(grid: Grid, boxes: Sequence[Tensor]) -> Tensor:
    """Indices (P,), in the order of :class:`Targets`, of the centre cells of the boxes that each level takes."""
    cells, taken = [], []
    for level, size in enumerate(grid.sizes):
        first = sum(grid.sizes[:level])
        stride, limits = grid.strides[first], grid.ranges[first : first + 1]
        for image, own in enumerate(boxes):
            cell = ((own[:, :2] + own[:, 2:]) / 2 / stride).long()  # (N_i, 2) column, row
            cells.append(first * len(boxes) + image * size + cell[:, 1] * grid.widths[level] + cell[:, 0])
            taken.append(_takes(own, limits)[0])
    return torch.cat(cells)[torch.cat(taken)]


def _takes(boxes: Tensor, ranges: Tensor) -> Tensor:
    """(L, N): does a level of ``ranges`` (L, 2) take a box of ``boxes`` (N, 4), by half its diagonal?"""
    half_diagonal = (boxes[:, 2:] - boxes[:, :2]).square().sum(dim=1).sqrt() / 2  # (N,)
    return (half_diagonal >= ranges[:, :1]) & (half_diagonal <= ranges[:, 1:])
