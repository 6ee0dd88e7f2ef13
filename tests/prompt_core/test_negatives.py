"""Samplers: without replacement, by their generator, and as often as they say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prompt_core import HardSampler, UniformSampler, UserError, WeightedSampler
from prompt_core.negatives import ClassSampler, draw_weighted

IMAGES = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Matrices this small are bound by the threads' waiting for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def hard_sampler(num_classes: int, share: float = 0.5) -> HardSampler:
    sampler = HardSampler(num_classes, share=share)
    rows = torch.randn(num_classes, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sampler.update(F.normalize(rows, dim=1))
    return sampler


def make(kind: str, num_classes: int) -> ClassSampler:
    if kind == "uniform":
        return UniformSampler(num_classes)
    return hard_sampler(num_classes) if kind == "hard" else WeightedSampler(torch.arange(1.0, num_classes + 1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["uniform", "weighted", "hard"]), data=st.data(), seed=st.integers(0, 2**31))
def test_draws_different_classes(kind: str, data: st.DataObject, seed: int) -> None:
    num_classes = data.draw(st.integers(1, 40))
    count = data.draw(st.integers(1, num_classes))
    ids, log_inclusion = make(kind, num_classes)(count, seeded(seed), IMAGES)
    assert ids.shape == (count,)
    assert ids.dtype == torch.int64
    assert len(set(ids.tolist())) == count
    assert int(ids.min()) >= 0
    assert int(ids.max()) < num_classes
    if kind == "uniform":
        assert log_inclusion is None
    else:
        assert log_inclusion is not None
        assert log_inclusion.shape == (count,)
        assert torch.isfinite(log_inclusion).all()
        assert bool((log_inclusion <= 0).all())


@pytest.mark.parametrize("kind", ["uniform", "weighted", "hard"])
def test_only_the_generator_decides(kind: str) -> None:
    sampler = make(kind, 100)
    torch.manual_seed(0)
    first = [sampler(10, generator, IMAGES)[0].tolist() for generator in [seeded()] for _ in range(2)]
    torch.manual_seed(1)
    again = [sampler(10, generator, IMAGES)[0].tolist() for generator in [seeded()] for _ in range(2)]
    assert first == again
    assert first[0] != first[1]
    assert sampler(10, seeded(7), IMAGES)[0].tolist() != first[0]


@pytest.mark.parametrize("kind", ["uniform", "weighted", "hard"])
def test_all_classes_can_be_drawn_and_no_more(kind: str) -> None:
    sampler = make(kind, 9)
    ids, log_inclusion = sampler(9, seeded(), IMAGES)
    assert sorted(ids.tolist()) == list(range(9))
    assert log_inclusion is None or log_inclusion.tolist() == [0] * 9
    for count in (10, 0, -1):
        with pytest.raises(UserError, match=f"{count} negatives were asked for out of 9 classes; lower K"):
            sampler(count, seeded(), IMAGES)


def test_uniform_draws_every_class_and_pair_equally_often() -> None:
    sampler, generator = UniformSampler(5), seeded()
    pairs = dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for _ in range(4000):
        first, second = sorted(sampler(2, generator)[0].tolist())
        pairs[first, second] += 1
    deviation = 4 * math.sqrt(400 * 0.9)
    assert all(abs(count - 400) < deviation for count in pairs.values()), pairs


def test_weighted_draws_in_proportion_to_the_weights_left() -> None:
    """All ordered pairs, against the product of the two draws' probabilities."""
    weights = [1.0, 2.0, 5.0]
    sampler, generator, draws = WeightedSampler(torch.tensor(weights)), seeded(), 6000
    counts = dict.fromkeys(itertools.permutations(range(3), 2), 0)
    for _ in range(draws):
        first, second = sampler(2, generator)[0].tolist()
        counts[first, second] += 1
    for (first, second), count in counts.items():
        probability = weights[first] / 8 * weights[second] / (8 - weights[first])
        deviation = 4 * math.sqrt(draws * probability * (1 - probability))
        assert abs(count - draws * probability) < deviation, (first, second)


@pytest.mark.parametrize(
    ("weights", "count"),
    [
        ([1.0, 2, 3, 4, 5, 6], 3),
        ([1.0, 1, 1, 1, 10, 20], 3),
        ([1e20, 2e20, 4e20], 2),
        ([1e-30, 2e-30, 4e-30, 1e-30], 2),
    ],
)
def test_each_class_counts_for_one_on_average(weights: list[float], count: int) -> None:
    """The mean of 1 / probability over the draws that hold a class is 1: what an unbiased sum needs."""
    generator, draws = seeded(), 5000
    rows = torch.tensor(weights, dtype=torch.float64)
    values = torch.zeros(draws, len(weights), dtype=torch.float64)
    for row in values:
        ids, log_inclusion = draw_weighted(rows, count, generator)
        row[ids] = (-log_inclusion.double()).exp()
    error = values.std(dim=0) / math.sqrt(draws)
    assert float(error.max()) < 0.05, "the tolerance would hide a bias"
    assert bool(((values.mean(dim=0) - 1).abs() < 4 * error).all()), values.mean(dim=0)


def test_reported_probabilities_match_the_frequencies_at_size() -> None:
    """Over a thousand classes the threshold hardly moves, and the probabilities are plain inclusion frequencies."""
    weights = torch.linspace(1, 50, 1000, dtype=torch.float64)
    generator, draws = seeded(), 1000
    hits = torch.zeros(1000, dtype=torch.float64)
    probability = torch.zeros(1000, dtype=torch.float64)
    for _ in range(draws):
        ids, log_inclusion = draw_weighted(weights, 200, generator)
        hits[ids] += 1
        probability[ids] += log_inclusion.double().exp()
    mean = probability / hits
    # By tenths of the classes, ordered by weight.
    frequency = (hits / draws).view(10, 100).mean(dim=1)
    torch.testing.assert_close(mean.view(10, 100).nanmean(dim=1), frequency, rtol=0.05, atol=0)
    assert float(frequency[-1]) > 5 * float(frequency[0])


def test_hard_prefers_near_classes_yet_draws_all() -> None:
    sampler, generator = hard_sampler(30), seeded()
    assert sampler.class_features is not None
    likeness = (IMAGES @ sampler.class_features.T / 0.05).softmax(dim=1).mean(dim=0)
    order = likeness.argsort()
    hits = torch.zeros(30)
    for _ in range(120):
        ids, _ = sampler(5, generator, IMAGES)
        hits[ids] += 1
    assert float(hits.min()) > 0
    near, far = hits[order[-4:]].mean(), hits[order[:15]].mean()
    assert float(near) > 2 * float(far)
    # With all of the mass spread evenly nothing is preferred.
    even, generator = hard_sampler(30, share=1.0), seeded()
    hits.zero_()
    for _ in range(120):
        hits[even(5, generator, IMAGES)[0]] += 1
    assert abs(float(hits[order[-4:]].mean()) - 120 / 6) < 4 * math.sqrt(120 / 6 / 4)


def test_hard_follows_the_latest_class_features() -> None:
    sampler = HardSampler(3, temperature=0.01, share=0.001)
    image = torch.tensor([[1.0, 0.0]])
    near, far = [1.0, 0.0], [-1.0, 0.0]
    for nearest in range(3):
        rows = torch.tensor([near if row == nearest else far for row in range(3)])
        sampler.update(rows)
        drawn = [int(sampler(1, seeded(seed), image)[0]) for seed in range(20)]
        assert drawn.count(nearest) >= 19


def test_hard_needs_features() -> None:
    sampler = HardSampler(3)
    with pytest.raises(UserError, match="need class features"):
        sampler(1, seeded(), IMAGES)
    with pytest.raises(UserError, match="4 class features for 3 classes"):
        sampler.update(torch.zeros(4, 8))
    sampler.update(torch.ones(3, 8, requires_grad=True))
    assert sampler.class_features is not None
    assert not sampler.class_features.requires_grad
    with pytest.raises(UserError, match="image features of the batch"):
        sampler(1, seeded())


@pytest.mark.parametrize(
    "weights",
    [torch.tensor([1.0, 0.0]), torch.tensor([1.0, -1.0]), torch.tensor([1.0, math.nan]), torch.ones(2, 2)],
)
def test_weights_must_be_positive(weights: Tensor) -> None:
    with pytest.raises(UserError, match="positive numbers, one per class"):
        WeightedSampler(weights)
    with pytest.raises(UserError, match="positive numbers"):
        WeightedSampler(torch.tensor([1.0, math.inf]))


@pytest.mark.parametrize(("temperature", "share"), [(0.05, 0.0), (0.05, 1.5), (0.0, 0.5), (-1.0, 0.5)])
def test_hard_settings_that_exclude_classes_are_refused(temperature: float, share: float) -> None:
    with pytest.raises(UserError, match="0 < share <= 1 and temperature > 0"):
        HardSampler(3, temperature, share)
