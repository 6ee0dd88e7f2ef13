"""Adaptation of the embedded model's image layer, on made-up trunk features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.mini_clip import adapt

FEATURES, EMBED, CLASSES = 40, 16, 12


@pytest.fixture(scope="module")
def task() -> dict[str, Tensor]:
    """Classes in a joint space, and trunk features whose photos of few pixels are turned against the large ones."""
    generator = torch.Generator().manual_seed(0)
    classes = F.normalize(torch.randn(CLASSES, EMBED, generator=generator), dim=1)
    weight = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=generator)).Q[:EMBED]
    push = 0.3 * torch.randn(FEATURES, FEATURES, generator=generator)
    turn = torch.linalg.matrix_exp(push - push.T)
    labels = torch.arange(CLASSES).repeat(40)
    noise = 0.1 * torch.randn(len(labels), FEATURES, generator=generator)
    large = classes[labels] @ weight + noise
    return {"classes": classes, "weight": weight, "bias": torch.zeros(EMBED), "labels": labels, "large": large,
            "small": large @ turn}  # fmt: skip


def right(weight: Tensor, bias: Tensor, features: Tensor, task: dict[str, Tensor]) -> float:
    guess = (F.linear(features, weight, bias) @ task["classes"].T).argmax(1)
    return float((guess == task["labels"]).float().mean())


def run(task: dict[str, Tensor], seed: int = 0) -> tuple[Tensor, Tensor]:
    used = torch.arange(len(task["labels"]) // 2)
    return adapt.adapted_layer(
        task["weight"],
        task["bias"],
        task["small"][used],
        task["labels"][used],
        task["classes"],
        task["classes"],
        20,
        seed,
    )


@pytest.fixture(scope="module")
def adapted(task: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return run(task)


def test_small_photos_gain_and_large_ones_keep(task: dict[str, Tensor], adapted: tuple[Tensor, Tensor]) -> None:
    weight, bias = adapted
    half = len(task["labels"]) // 2
    held_out = {**task, "labels": task["labels"][half:]}
    before = right(task["weight"], task["bias"], task["small"][half:], held_out)
    assert before < 0.8
    assert right(weight, bias, task["small"][half:], held_out) > before + 0.1
    assert right(weight, bias, task["large"], task) > right(task["weight"], task["bias"], task["large"], task) - 0.05


def test_result_is_the_average_of_start_and_end(
    task: dict[str, Tensor], adapted: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapt, "MIX", 1.0)
    whole = run(task)
    for start, middle, end in zip((task["weight"], task["bias"]), adapted, whole, strict=True):
        torch.testing.assert_close(middle, (start + end) / 2)


def test_seed_decides(task: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt, "STEPS", 5)
    first, again, other = run(task, 1), run(task, 1), run(task, 2)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
