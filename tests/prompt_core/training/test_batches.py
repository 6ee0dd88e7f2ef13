"""Batches follow from the seed, the epoch and the step alone; photos that cannot be read are left out beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prompt_core import UserError
from prompt_core.clip import Clip
from prompt_core.data.augment import TrainTransform, view_generator
from prompt_core.data.images import ImageSet
from prompt_core.data.sources import open_images
from prompt_core.training.batches import FeatureBatches, ImageBatches, readable_images


@pytest.fixture
def photos(tmp_path: Path) -> ImageSet:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(3):
            pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return open_images(f"folder:{tmp_path}")


def test_views_are_those_of_the_seed_the_photo_and_the_epoch(photos: ImageSet, tiny_clip: Clip) -> None:
    transform = TrainTransform(32, tiny_clip.image_mean, tiny_clip.image_std)
    batches = [ImageBatches(photos, photos.labels, transform, tiny_clip.preprocess, 2, 7, count) for count in (0, 4)]
    chosen = np.array([4, 0, 3])
    images, labels = batches[0].batch(chosen, 1, torch.Generator())
    assert images.shape == (6, 3, 32, 32)
    assert labels.tolist() == [1, 0, 1] * 2, "views first, images tiled behind"
    for place, index in enumerate(chosen.tolist()):
        for view in range(2):
            expected = transform(photos.read(index), view_generator(7, photos.keys[index], 2 + view))
            assert torch.equal(images[3 * view + place], expected)
    # Neither threads nor what was asked before changes them; another epoch and another seed do.
    batches[1].batch(np.array([1, 2]), 0, torch.Generator())
    batches[1].expect(np.array([0, 2]), 1)
    assert torch.equal(batches[1].batch(chosen, 1, torch.Generator())[0], images)
    assert not torch.equal(batches[0].batch(chosen, 2, torch.Generator())[0], images)
    other = ImageBatches(photos, photos.labels, transform, tiny_clip.preprocess, 2, 8)
    assert not torch.equal(other.batch(chosen, 1, torch.Generator())[0], images)


def test_without_a_transform_there_is_one_view_by_clips_own(photos: ImageSet, tiny_clip: Clip) -> None:
    batches = ImageBatches(photos, photos.labels, None, tiny_clip.preprocess, 4, 0)
    images, labels = batches.batch(np.array([5]), 3, torch.Generator())
    assert torch.equal(images, tiny_clip.preprocess(photos.read(5))[None])
    assert (labels.tolist(), batches.views, len(batches)) == ([1], 1, 6)


@pytest.mark.parametrize("normalise", [True, False])
def test_stored_views_are_different_ones(normalise: bool) -> None:
    features = np.random.default_rng(0).normal(size=(5, 4, 8)).astype(np.float16)
    batches = FeatureBatches(features, np.array([0, 1, 2, 3, 4]), 3, normalise)
    picked, labels = batches.batch(np.array([2, 4]), 0, torch.Generator().manual_seed(1))
    assert picked.shape == (6, 8)
    assert labels.tolist() == [2, 4, 2, 4, 2, 4]
    stored = torch.from_numpy(features.astype(np.float32))
    stored = torch.nn.functional.normalize(stored, dim=-1) if normalise else stored
    for place, index in enumerate((2, 4)):
        views = picked[place::2]
        matches = [int((stored[index] - view).abs().sum(dim=1).argmin()) for view in views]
        assert len(set(matches)) == 3
        torch.testing.assert_close(stored[index][matches], views)
    assert FeatureBatches(features, np.zeros(5), 0).views == 4


def test_unreadable_photos(photos: ImageSet, tmp_path: Path) -> None:
    assert readable_images(photos) == (photos, [])
    (tmp_path / "dog" / "1.png").write_bytes(b"nothing")
    seen: list[tuple[int, int]] = []
    with pytest.raises(UserError, match=r"1 of 6 images of .* cannot be read, more than 1 %: dog/1.png; replace"):
        readable_images(photos, 1, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    many = photos.subset([0] * 99 + [4])
    good, bad = readable_images(many)
    assert (len(good), bad) == (99, ["dog/1.png"])
    with pytest.raises(UserError, match="no images to train on"):
        readable_images(photos.subset([]))
