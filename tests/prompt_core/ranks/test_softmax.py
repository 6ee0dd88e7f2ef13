"""The full softmax over shared columns, in one process: torch's cross-entropy, and shares that add up to it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from prompt_core.ranks.ranks import ALONE
from prompt_core.ranks.softmax import shared_cross_entropy


@pytest.mark.parametrize("seed", range(5))
def test_alone_it_is_the_cross_entropy(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 20 * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (7,), generator=generator)
    logits[3, (labels[3] + 1) % 5] = float("-inf")  # a namesake
    logits[5] = 1.5  # a tie, in which the first class wins
    logits.requires_grad_()
    loss, right = shared_cross_entropy(logits, torch.arange(5), labels, torch.arange(7), ALONE)
    expected = F.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    ours, theirs = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=0)
    assert right.tolist() == (logits.argmax(dim=1) == labels).tolist()


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([[3e4, -3e4], [0.0, 3e4]], requires_grad=True)
    loss, right = shared_cross_entropy(logits, torch.arange(2), torch.tensor([0, 0]), torch.arange(2), ALONE)
    assert float(loss.detach()) == 3e4
    assert right.tolist() == [True, False]
    assert bool(torch.autograd.grad(loss, logits)[0].isfinite().all())
