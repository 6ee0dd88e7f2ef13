"""Shares of data sets, grouped batches, and a stream that a resumed run enters where it left."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("detectron2")

from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import RepeatFactorTrainingSampler

from pomp_engine.samplers import GroupedBatchSampler, MultiDatasetSampler, batch_groups, sample_weights


def records(categories: list[list[int]]) -> list[dict[str, list[dict[str, int]]]]:
    return [{"annotations": [{"category_id": number} for number in image]} for image in categories]


def test_weights_give_each_data_set_its_share() -> None:
    weights = sample_weights([10, 1000], [1, 4])
    assert weights[:10].sum() / weights.sum() == pytest.approx(0.2)
    # max size / size x ratio / sum of ratios, by hand
    assert weights[0].item() == pytest.approx(1000 / 10 * 1 / 5)
    assert weights[-1].item() == pytest.approx(4 / 5)


def test_repeat_factors_change_weights_within_a_data_set_only() -> None:
    rare = records([[0], [0], [0], [0, 1]])
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(rare, 1.0)
    torch.testing.assert_close(factors, torch.tensor([1.0, 1.0, 1.0, 2.0]))
    weights = sample_weights([4, 8], [1, 4], [factors, None])
    assert weights[:4].sum() / weights.sum() == pytest.approx(0.2)
    torch.testing.assert_close(weights[:4] / weights[0], factors.double())
    assert weights[4:].unique().numel() == 1


@pytest.mark.parametrize(("sizes", "ratios"), [([3, 0], [1, 1]), ([3, 3], [1]), ([], [])])
def test_weights_of_nothing_are_refused(sizes: list[int], ratios: list[float]) -> None:
    with pytest.raises(ValueError):
        sample_weights(sizes, ratios)


def test_drawn_shares_are_those_of_the_weights() -> None:
    sampler = MultiDatasetSampler(sample_weights([5, 500], [1, 4]), seed=0)
    drawn = list(itertools.islice(sampler, 20_000))
    share = sum(index < 5 for index in drawn) / len(drawn)
    assert share == pytest.approx(0.2, abs=0.01)


def test_the_stream_depends_on_the_seed_and_is_shared_out_among_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sample_weights([7, 70], [1, 1])
    whole = list(itertools.islice(MultiDatasetSampler(weights, seed=3), 300))
    assert whole == list(itertools.islice(MultiDatasetSampler(weights, seed=3), 300))
    assert whole != list(itertools.islice(MultiDatasetSampler(weights, seed=4), 300))
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        mine = list(itertools.islice(MultiDatasetSampler(weights, seed=3), 150))
        assert mine == whole[rank::2]


def test_groups_are_data_set_and_orientation() -> None:
    source, landscape = [0, 0, 1, 1], [True, False, True, False]
    assert batch_groups(source, landscape).tolist() == [0, 1, 2, 3]
    assert batch_groups(source, landscape, by_dataset=False).tolist() == [0, 1, 0, 1]
    assert batch_groups(source, landscape, by_orientation=False).tolist() == [0, 0, 2, 2]


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.integers(0, 3), min_size=4, max_size=40),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 1000),
    start=st.integers(0, 30),
)
def test_batches_are_of_one_group_and_of_its_size_and_resume_anywhere(
    groups: list[int], sizes: tuple[int, int], seed: int, start: int
) -> None:
    table = torch.tensor([*groups, 3])

    def batches(first: int) -> list[list[tuple[int, int]]]:
        stream = MultiDatasetSampler(torch.ones(len(table)), seed)
        return list(itertools.islice(GroupedBatchSampler(stream, table, list(sizes), first), 20))

    drawn = batches(0)
    for batch in drawn:
        kinds = {int(table[index]) for index, _ in batch}
        assert len(kinds) == 1
        assert len(batch) == sizes[kinds.pop() // 2]
    draws = [draw for batch in drawn for _, draw in batch]
    assert len(set(draws)) == len(draws)
    stream = list(itertools.islice(MultiDatasetSampler(torch.ones(len(table)), seed), max(draws) + 1))
    assert all(stream[draw] == index for batch in drawn for index, draw in batch)
    longer = list(
        itertools.islice(
            GroupedBatchSampler(MultiDatasetSampler(torch.ones(len(table)), seed), table, list(sizes)), start + 20
        )
    )
    assert batches(start) == longer[start:]


def test_batches_of_one_data_set_are_those_of_detectron2() -> None:
    """The same batches as grouping loaded images, without loading them."""
    shapes = [(30, 20), (20, 30), (20, 20), (40, 10), (10, 40), (9, 8)]
    stream = list(itertools.islice(MultiDatasetSampler(torch.ones(6), seed=1), 600))
    images = [{"index": index, "width": shapes[index][0], "height": shapes[index][1]} for index in stream]
    expected = [[image["index"] for image in batch] for batch in AspectRatioGroupedDataset(images, 4)]
    groups = batch_groups([0] * 6, [width > height for width, height in shapes])
    drawn = [[index for index, _ in batch] for batch in GroupedBatchSampler(stream, groups, 4)]
    assert drawn == expected


def test_box_and_image_batches_alternate_about_evenly() -> None:
    """Ratio 1:4 in images, batches of 8 and 32 (the published setting): as many batches of either kind."""
    sizes = [50, 5000]
    groups = batch_groups([0] * sizes[0] + [1] * sizes[1], [True] * sum(sizes))
    sampler = GroupedBatchSampler(MultiDatasetSampler(sample_weights(sizes, [1, 4]), 0), groups, [8, 32])
    kinds = Counter(int(groups[batch[0][0]]) // 2 for batch in itertools.islice(sampler, 400))
    assert kinds[0] / 400 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("sizes", [[2], [2, 0]])
def test_a_batch_size_for_each_data_set_is_needed(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="for 2 data sets"):
        GroupedBatchSampler([], torch.tensor([0, 2]), sizes)
