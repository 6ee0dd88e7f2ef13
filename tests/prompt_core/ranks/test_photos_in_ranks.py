"""Photos in several ranks: each is encoded once, into the bytes of one process, after a break too; exact totals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prompt_core import UserError
from prompt_core.data import encode_photos
from prompt_core.data.augment import TrainTransform
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.images import ImageSet
from prompt_core.metrics import Accuracy, zero_shot_accuracy
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.training import batches
from prompt_core.training.batches import readable_images

from ...support.ranks import in_ranks

PHOTOS, VIEWS = 23, 2
TRANSFORM = TrainTransform(8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class CountingTower:
    """A frozen random projection that counts the views it has seen, and may end its process at one."""

    embed_dim, image_fingerprint = 6, "counting"
    preprocess: Any = None

    def __init__(self, breaks_at: int | None = None) -> None:
        self.weight = torch.randn(6, 3 * 8 * 8, generator=torch.Generator().manual_seed(0)).double()
        self.seen, self.breaks_at = 0, breaks_at

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        if self.breaks_at is not None and self.seen > self.breaks_at:
            os._exit(1)
        return torch.nn.functional.normalize(images.double().flatten(1) @ self.weight.T, dim=-1).float()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Some photos, one of which cannot be read; blocks hold two."""
    monkeypatch.setattr(encode_photos, "BLOCK_VIEWS", 2 * VIEWS)
    for module in (encode_photos, batches):
        monkeypatch.setattr(module, "MAX_UNREADABLE_SHARE", 0.05)
    generator, keys = np.random.default_rng(3), [f"{index:03d}.png" for index in range(PHOTOS)]
    for key in keys:
        Image.fromarray(generator.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(tmp_path / key)
    (tmp_path / keys[5]).write_bytes(b"no picture")
    return ImageSet(["a", "b"], ["a", "b"], np.arange(PHOTOS) % 2, keys, "test set", tmp_path)


def fill(photos: ImageSet, cache: Path, ranks: Ranks, breaks_at: int | None = None) -> tuple[int, bytes, list[str]]:
    """Views that this rank has encoded, the numbers, and what could not be read."""
    tower = CountingTower(breaks_at)
    cached = cached_features(tower, photos, VIEWS, TRANSFORM, 7, cache, batch_size=2, workers=0, ranks=ranks)
    return tower.seen, np.ascontiguousarray(cached.features).tobytes(), cached.unreadable


def test_each_photo_is_encoded_once_by_some_rank(photos: ImageSet, tmp_path: Path) -> None:
    _, whole, unreadable = fill(photos, tmp_path / "alone", ALONE)
    assert unreadable == ["005.png"]
    of_each = in_ranks(3, lambda ranks: fill(photos, tmp_path / "cache", ranks))
    assert sum(seen for seen, _, _ in of_each) == VIEWS * (PHOTOS - 1)
    assert min(seen for seen, _, _ in of_each) > 0
    assert all((found, bad) == (whole, unreadable) for _, found, bad in of_each)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(
        path.name for path in (tmp_path / "alone").iterdir()
    )
    again = in_ranks(2, lambda ranks: fill(photos, tmp_path / "cache", ranks))
    assert [(seen, found) for seen, found, _ in again] == [(0, whole)] * 2


def test_another_number_of_ranks_goes_on_with_what_is_there(photos: ImageSet, tmp_path: Path) -> None:
    _, whole, _ = fill(photos, tmp_path / "alone", ALONE)
    cache = tmp_path / "cache"
    with pytest.raises(AssertionError, match="rank"):
        in_ranks(3, lambda ranks: fill(photos, cache, ranks, breaks_at=4 if ranks.rank == 1 else None))
    (part,) = cache.iterdir()
    blocks = len([line for line in (part / "blocks.jsonl").read_text().splitlines() if line])
    assert blocks == 3  # the first round; in the second the rank has died
    done = VIEWS * 2 * blocks - VIEWS  # one of these photos cannot be read
    of_each = in_ranks(2, lambda ranks: fill(photos, cache, ranks))
    assert sum(seen for seen, _, _ in of_each) == VIEWS * (PHOTOS - 1) - done
    assert all(found == whole for _, found, _ in of_each)


def test_all_ranks_say_alike_that_too_much_cannot_be_read(photos: ImageSet, tmp_path: Path) -> None:
    (photos.root / photos.keys[22]).write_bytes(b"no picture")

    def refused(ranks: Ranks) -> list[str]:
        told = []
        for work in (lambda: fill(photos, tmp_path / "cache", ranks), lambda: readable_images(photos, 1, None, ranks)):
            with pytest.raises(UserError) as error:
                work()
            told.append(str(error.value))
        return told

    first, *others = in_ranks(3, refused)
    assert all("2 of 23 images of test set cannot be read" in text for text in first)
    assert others == [first, first]
    (photos.root / photos.keys[22]).write_bytes((photos.root / photos.keys[21]).read_bytes())

    def read(ranks: Ranks) -> tuple[list[str], list[str]]:
        good, bad = readable_images(photos, 1, None, ranks)
        return list(good.keys), bad

    readable, bad = in_ranks(2, read)[1]
    assert (len(readable), bad) == (22, ["005.png"])


def test_totals_are_those_of_one_process() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.nn.functional.normalize(torch.randn(9, 8, generator=generator), dim=-1)
    labels = torch.arange(50) % 7
    images = torch.nn.functional.normalize(classes[labels] + 0.5 * torch.randn(50, 8, generator=generator), dim=-1)

    def score(ranks: Ranks) -> Accuracy:
        return zero_shot_accuracy(images, labels, classes, [0, 1, 2, 3, 4, 5, 6, 0, 1], batch=4, ranks=ranks)

    expected = score(ALONE)
    assert 0.3 < expected.top1 < 1
    for found in in_ranks(3, score):
        assert found == expected
        assert list(found.answers) == list(expected.answers)
