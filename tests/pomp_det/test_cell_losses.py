"""Losses of a detection network's cells: which cell learns which box, and that boxes are learned."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("detectron2")

from pomp_det.proposals.cell_losses import assign_cells, cell_losses, distribution_focal, quality_focal
from pomp_det.proposals.cells import cell_boxes
from pomp_engine.backbones.nanodet import LEVELS, SIDE_BINS

SIZES = [(8, 8), (4, 4), (2, 2)]  # of a photo of 64 pixels
CLASSES = 3


def maps(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, CLASSES + 4 * SIDE_BINS, *size, generator=generator) for size in SIZES]


def test_cells_inside_a_box_that_predict_it_learn_it() -> None:
    points = torch.tensor([[4.0, 4], [12, 4], [20, 4], [60, 60]])
    boxes = torch.tensor([[0.0, 0, 16, 8], [10, 0, 30, 8], [61, 61, 62, 62]])
    predicted = torch.tensor([[0.0, 0, 16, 8], [0, 0, 10, 8], [50, 50, 60, 60], [0, 0, 1, 1]])
    owner, quality = assign_cells(points, predicted, boxes)
    # The first box has overlaps of 1 and 5/8, so two cells; no prediction covers the second one, whose nearest cell
    # learns it; the third lies between the centres.
    assert owner.tolist() == [0, 0, 1, 2]
    torch.testing.assert_close(quality, torch.tensor([1, 5 / 8, 0.1, 0.1]))
    nothing = assign_cells(points, predicted, boxes[:0])
    assert nothing[0].tolist() == [-1] * 4


def test_the_losses_are_those_of_the_paper() -> None:
    logits, target = torch.tensor([0.3, -2.0]), torch.tensor([0.8, 0.0])
    for value, y, loss in zip(logits.tolist(), target.tolist(), quality_focal(logits, target).tolist(), strict=True):
        p = 1 / (1 + math.exp(-value))
        entropy = -((1 - y) * math.log(1 - p) + y * math.log(p))
        assert loss == pytest.approx(abs(y - p) ** 2 * entropy, rel=1e-5)
    sides = torch.randn(3, SIDE_BINS, generator=torch.Generator().manual_seed(1))
    shares = sides.softmax(dim=1)
    wanted = [2.25, 0.0, 40.0]
    for row, (side, loss) in enumerate(zip(wanted, distribution_focal(sides, torch.tensor(wanted)), strict=True)):
        if row == 0:
            expected = -(0.75 * math.log(shares[0, 2]) + 0.25 * math.log(shares[0, 3]))
            assert float(loss) == pytest.approx(expected, rel=1e-5)
        else:
            nearest = 0 if side == 0 else 10
            assert float(loss) == pytest.approx(-math.log(shares[row, nearest]), rel=1e-2)


def test_boxes_are_learned_and_other_classes_are_left_alone() -> None:
    """Cells that are optimised directly find the boxes, by class 2; class 1 has no word, and no gradient."""
    cells = [level.requires_grad_(True) for level in maps()]
    boxes, classes = [torch.tensor([[4.0, 4, 28, 20], [30, 30, 62, 60]])], [torch.tensor([0, 1])]
    optimiser = torch.optim.Adam(cells, lr=0.1)
    start = {name: float(loss.detach()) for name, loss in cell_losses(cells, boxes, classes, CLASSES, [2, 0]).items()}
    for _ in range(60):
        losses = cell_losses(cells, boxes, classes, CLASSES, [2, 0])
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    assert all(float(loss.detach()) < 0.5 * start[name] for name, loss in losses.items())
    for level, before in zip(cells, maps(), strict=True):
        assert torch.equal(level.detach()[:, 1], before[:, 1])
    logits = torch.cat([level[0, :CLASSES].flatten(1) for level in cells], dim=1)  # (S, M)
    predicted = torch.cat(
        [cell_boxes(level[0].detach(), stage, CLASSES) for level, stage in zip(cells, LEVELS, strict=True)]
    )
    for word, box in ((2, boxes[0][0]), (0, boxes[0][1])):
        best = int(logits[word].argmax())
        assert float(F.l1_loss(predicted[best], box)) < 1.5
        assert float(logits[word, best].sigmoid()) > 0.7


def test_photos_without_boxes_only_have_negatives() -> None:
    losses = cell_losses(maps(), [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)], CLASSES, [0])
    assert float(losses["loss_cell_class"]) > 0
    assert float(losses["loss_cell_box"]) == float(losses["loss_cell_sides"]) == 0
