"""Batches that a list of records and a mapper give: alike for any workers, and when resumed."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")

import torch
from detectron2.config import get_cfg

from pomp_engine.loader import evaluation_loader, images_per_rank, numpy_seed, seed_of_run, seeded_loader
from prompt_core.data.images import UnreadableImage
from prompt_core.errors import UserError

RECORDS = [{"file_name": f"{number}.png", "number": number} for number in range(7)]


def draw(record: dict[str, Any]) -> tuple[int, float]:
    """The record's number and what an augmentation would draw."""
    return record["number"], float(np.random.rand())  # noqa: NPY002


def take(count: int, **options: Any) -> list[Any]:
    return list(itertools.islice(seeded_loader(RECORDS, draw, 3, **{"seed": 1, **options}), count))


def test_batches_depend_on_the_seed_alone_and_resume_anywhere() -> None:
    whole = take(9)
    assert all(len(batch) == 3 for batch in whole)
    assert take(9) == whole
    assert take(9, seed=2) != whole
    assert take(4, start=5) == whole[5:]
    assert take(4, start=5, workers=2) == whole[5:]
    numbers = [number for batch in whole for number, _ in batch]
    assert [sorted(numbers[first : first + 7]) for first in (0, 7)] == [list(range(7))] * 2


def test_ranks_share_the_records_and_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [number for batch in take(8) for number, _ in batch]
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    drawn = []
    for rank in range(2):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        mine = [record for batch in take(4) for record in batch]
        assert [number for number, _ in mine] == whole[rank::2]
        drawn.append([value for _, value in mine])
    assert not set(drawn[0]) & set(drawn[1])


def test_groups_and_own_indices() -> None:
    groups = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    batches = take(6, indices=itertools.cycle(range(7)), groups=groups)
    assert [[number for number, _ in batch] for batch in batches[:2]] == [[0, 2, 4], [1, 3, 5]]
    assert all(len({number % 2 for number, _ in batch}) == 1 for batch in batches)


def test_an_unreadable_photo_is_replaced_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    def mapper(record: dict[str, Any]) -> int:
        if record["number"] in unreadable:
            raise UnreadableImage(record["file_name"], "truncated")
        return int(record["number"])

    unreadable = {4}
    with caplog.at_level(logging.WARNING):
        batches = list(itertools.islice(seeded_loader(RECORDS, mapper, 3, 1), 7))
    assert 4 not in itertools.chain(*batches)
    assert caplog.text.count("4.png cannot be used and is replaced by another: truncated") == 1
    unreadable |= set(range(7))
    with pytest.raises(UserError, match="photos in a row cannot be read"):
        next(iter(seeded_loader(RECORDS, mapper, 3, 1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_reading_process_raises_comes_out_as_it_was(workers: int) -> None:
    """torch would wrap the one line in the traceback of its process, or turn it into a RuntimeError."""

    def mapper(record: dict[str, Any]) -> int:
        if record["number"] == 4:
            raise error
        return int(record["number"])

    for error in (UserError("label 4 is wrong"), UnreadableImage("4.png", "truncated")):
        seen = []
        with pytest.raises(UserError) as caught:  # noqa: PT012
            for batch in evaluation_loader(RECORDS, mapper, workers):
                seen.extend(batch)
        assert type(caught.value) is type(error)
        assert str(caught.value) == str(error)
        assert seen == [0, 1, 2, 3]
    error = UserError("label 4 is wrong")
    with pytest.raises(UserError, match=r"^label 4 is wrong$"):
        list(itertools.islice(seeded_loader(RECORDS, mapper, 3, 1, workers=workers), 7))


def test_an_evaluation_sees_each_record_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_all(workers: int = 0, images: int = 1) -> list[int]:
        loader = evaluation_loader(RECORDS, lambda record: int(record["number"]), workers, images)
        batches = list(loader)
        assert len(loader) == len(batches)
        assert all(len(batch) == images for batch in batches[:-1])
        return [number for batch in batches for number in batch]

    assert take_all() == take_all(2) == take_all(2, images=3) == list(range(7))
    parts = []
    for rank in range(2):
        monkeypatch.setattr("detectron2.data.samplers.distributed_sampler.comm.get_world_size", lambda: 2)
        monkeypatch.setattr("detectron2.data.samplers.distributed_sampler.comm.get_rank", lambda rank=rank: rank)
        parts += take_all()
    assert sorted(parts) == list(range(7))


def test_images_and_seed_of_a_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    cfg.SEED, cfg.SOLVER.IMS_PER_BATCH = 5, 6
    assert seed_of_run(cfg, 3) == 5
    monkeypatch.setattr("detectron2.utils.comm.shared_random_seed", lambda: 9)
    cfg.SEED = -1
    assert seed_of_run(cfg) == 9
    assert not caplog.text
    assert seed_of_run(cfg, 3) == 9
    assert "SEED is -1" in caplog.text
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    assert images_per_rank(cfg) == 2
    cfg.SOLVER.IMS_PER_BATCH = 7
    with pytest.raises(UserError, match="IMS_PER_BATCH 7 cannot be shared out among 3 processes"):
        images_per_rank(cfg)


def test_the_global_generator_is_put_back() -> None:
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.rand(2)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    with numpy_seed([1, 2]):
        inside = np.random.rand()  # noqa: NPY002
    with numpy_seed([1, 2]):
        assert np.random.rand() == inside  # noqa: NPY002
    with numpy_seed([1, 3]):
        assert np.random.rand() != inside  # noqa: NPY002
    assert np.array_equal(np.random.rand(2), expected)  # noqa: NPY002
