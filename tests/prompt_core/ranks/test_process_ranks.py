"""Two ranks for a second: every operation against what one process computes, and steps of learning."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_core import UserError
from prompt_core.ranks.process_ranks import LostRank
from prompt_core.ranks.ranks import ALONE, Ranks, check_same
from prompt_core.ranks.softmax import shared_cross_entropy
from prompt_core.training.step import LearningSettings

from ...support.learned_in_ranks import learned
from ...support.ranks import in_ranks

PLACES = [torch.tensor([0, 3, 4]), torch.tensor([1, 2])]
WEIGHTS = torch.arange(10, dtype=torch.float64).reshape(5, 2)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operations(ranks: Ranks) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rows, own = random(5, 2), PLACES[ranks.rank]
    part = rows[own].requires_grad_()
    whole = ranks.gather_rows(part, PLACES)
    # Each rank makes something else of the rows; the gradient is of the sum.
    (gradient,) = torch.autograd.grad((whole * WEIGHTS * (ranks.rank + 1)).square().sum(), part)
    found["rows"], found["gradient of rows"] = whole.detach(), (own, gradient)
    number = torch.tensor(2.0 + ranks.rank, requires_grad=True)
    total = ranks.add(number)
    (found["gradient of a sum"],) = torch.autograd.grad(total * (ranks.rank + 1), number)
    found["sum"] = total.detach()
    values = torch.tensor([1.0, -ranks.rank])
    found["largest"], found["smallest"] = ranks.largest(values), ranks.smallest(values)
    check_same(ranks, model="a")
    with pytest.raises(UserError, match="the 2 processes of this job do not have the same data; give them"):
        check_same(ranks, model="a", data=[ranks.rank])
    found["any"] = [ranks.any(ranks.rank == 1), ranks.any(False)]
    found["everyone"], found["collected"] = ranks.everyone(ranks.rank + 5), ranks.collect(ranks.rank + 5)
    found["from leader"] = ranks.from_leader({"rank": ranks.rank})
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0, 2.0])
    if ranks.rank == 1:
        parameters[1].grad = torch.tensor([3.0, 4.0])
    found["numbers"] = [float(value) for value in ranks.sum_gradients(parameters, torch.tensor(0.5), torch.tensor(3))]
    found["gradients"] = [None if one.grad is None else one.grad.tolist() for one in parameters]
    logits, labels = 5 * random(4, 6, seed=1), torch.tensor([5, 0, 3, 3])
    logits[2, 4], logits[1] = float("-inf"), 0.0
    columns = [torch.tensor([1, 3, 4]), torch.tensor([0, 2, 5])][ranks.rank]
    images = [torch.tensor([0, 2]), torch.tensor([1, 3])][ranks.rank]
    shard = logits[:, columns].requires_grad_()
    loss, right = shared_cross_entropy(shard, columns, labels, images, ranks)
    found["loss"], found["right"] = loss.detach(), (images, right)
    found["gradient of logits"] = (columns, torch.autograd.grad(loss, shard)[0])
    none = shared_cross_entropy(
        logits[:, :0] if ranks.rank else logits, torch.arange(0 if ranks.rank else 6), labels, images, ranks
    )
    found["loss where a rank has no class"] = none[0]
    return found


def check_operations(first: dict[str, Any], second: dict[str, Any]) -> None:
    rows = random(5, 2).requires_grad_()
    loss = sum((rows * WEIGHTS * factor).square().sum() for factor in (1, 2))
    assert isinstance(loss, Tensor)
    (gradient,) = torch.autograd.grad(loss, rows)
    for found in (first, second):
        assert torch.equal(found["rows"], rows.detach())
        own, of_own = found["gradient of rows"]
        torch.testing.assert_close(of_own, gradient[own])
        assert (float(found["sum"]), float(found["gradient of a sum"])) == (5.0, 3.0)
        assert (found["largest"].tolist(), found["smallest"].tolist()) == ([1.0, 0.0], [1.0, -1.0])
        assert (found["any"], found["everyone"]) == ([True, False], [5, 6])
        assert found["from leader"] == {"rank": 0}
        assert found["numbers"] == [1.0, 6.0]
        assert found["gradients"] == [[2.0, 4.0], [3.0, 4.0], None]
    assert (first["collected"], second["collected"]) == ([5, 6], [])
    logits, labels = 5 * random(4, 6, seed=1), torch.tensor([5, 0, 3, 3])
    logits[2, 4], logits[1] = float("-inf"), 0.0
    logits.requires_grad_()
    expected = F.cross_entropy(logits, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(first["loss"] + second["loss"], expected.detach())
    torch.testing.assert_close(
        first["loss where a rank has no class"] + second["loss where a rank has no class"], expected.detach()
    )
    answers = torch.empty(4, dtype=torch.bool)
    for found in (first, second):
        columns, of_columns = found["gradient of logits"]
        torch.testing.assert_close(of_columns, gradient[:, columns])
        images, right = found["right"]
        answers[images] = right
    assert answers.tolist() == (logits.argmax(dim=1) == labels).tolist()
    assert bool(answers[1]), "in a tie over both ranks the first class wins"


def test_two_ranks_compute_what_one_does(make_clip: Callable[..., Any], make_method: Callable[..., Any]) -> None:
    clip = make_clip(torch.float64)
    sampled = LearningSettings(num_classes=4, epochs=2, batch=6, views=1, learning_rate=0.02)
    full = LearningSettings(num_classes=0, epochs=1, batch=6, views=1, learning_rate=0.02, warmup_epochs=0)

    def work(ranks: Ranks) -> Any:
        found = operations(ranks) if ranks.size > 1 else {}
        prompts = [learned("coop", settings, ranks, clip, make_method) for settings in (sampled, full)]
        return found, prompts

    (first, ours), (second, theirs) = in_ranks(2, work)
    check_operations(first, second)
    _, expected = work(ALONE)
    for one, other, reference in zip(ours, theirs, expected, strict=True):
        for key, value in reference.items():
            assert torch.equal(one[key], other[key]), "all ranks have the same"
            torch.testing.assert_close(one[key], value, atol=1e-10, rtol=0)


def test_a_rank_that_has_died_is_told(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        if ranks.rank == 1:
            os._exit(3)
        with pytest.raises(LostRank) as error:
            ranks.any(True)
        (tmp_path / "told.txt").write_text(str(error.value))

    with pytest.raises(AssertionError, match="of 2"):
        in_ranks(2, work)
    told = (tmp_path / "told.txt").read_text()
    assert told.startswith(
        "another of the 2 processes of this job has died, or its machine, so all stop; start the same"
    )
