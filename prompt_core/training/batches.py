"""Batches of a training step: stored views of cached features, or photos that are augmented on the fly.

A batch depends only on the seed, the epoch and the step, so that a resumed run sees the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from prompt_core.data.augment import TrainTransform, view_generator
from prompt_core.data.encode_photos import MAX_UNREADABLE_SHARE
from prompt_core.data.images import ImageSet, UnreadableImage
from prompt_core.errors import UserError
from prompt_core.ranks.balance import runs
from prompt_core.ranks.ranks import ALONE, Ranks


class Batches(Protocol):
    """Training images as a method reads them."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def batch(
        self, chosen: np.ndarray, epoch: int, generator: torch.Generator, own: range | None = None
    ) -> tuple[Tensor, Tensor]:
        """Inputs (B V, ...) and labels (B V,) of the images ``chosen`` (B,), V views of each.

        Views are the outer, images the inner index, as the published trainer concatenates its augmented batches.

        Args:
            own: places in ``chosen`` of the images of this rank: inputs are (b V, ...) of these alone, and the same
                as in a whole batch.
        """
        ...

    def expect(self, chosen: np.ndarray, epoch: int) -> None:
        """Announce the next batch, so that work on it can start; this changes no result."""
        ...


class FeatureBatches:
    """Stored views of cached image features.

    Args:
        features: (n, S, E), S stored views of each image.
        labels: (n,).
        views: views in a batch, all different; 0 for all stored ones.
        normalise: whether rows are normalised again after half precision.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, views: int, normalise: bool = True) -> None:
        self.features, self.labels, self.normalise = features, labels, normalise
        self.views = min(views, features.shape[1]) if views > 0 else features.shape[1]

    def __len__(self) -> int:
        return len(self.features)

    def batch(
        self, chosen: np.ndarray, epoch: int, generator: torch.Generator, own: range | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (B V, E) float32 and labels (B V,)."""
        stored = self.features.shape[1]
        ranks = torch.rand(len(chosen), stored, generator=generator).argsort(dim=1)[:, : self.views].numpy()  # (B, V)
        rows = chosen
        if own is not None:
            rows, ranks = chosen[own.start : own.stop], ranks[own.start : own.stop]
        picked = torch.from_numpy(np.asarray(self.features[rows[:, None], ranks], dtype=np.float32))  # (B, V, E)
        if self.normalise:
            picked = F.normalize(picked, dim=-1)
        flat = picked.transpose(0, 1).reshape(-1, picked.shape[-1])
        return flat, torch.from_numpy(self.labels[chosen].astype(np.int64)).repeat(self.views)

    def expect(self, chosen: np.ndarray, epoch: int) -> None:
        """Nothing to do: features are already available."""


class ImageBatches:
    """Photos, decoded and augmented on the fly.

    Args:
        images: n readable photos.
        labels: (n,).
        transform: the random transform; None for ``preprocess``, and then there is one view.
        preprocess: CLIP's own test transform.
        views: views of each photo in a batch.
        seed: of the views, which differ from epoch to epoch.
        workers: decoding threads; None for one per core, at most 16.
    """

    def __init__(
        self,
        images: ImageSet,
        labels: np.ndarray,
        transform: TrainTransform | None,
        preprocess: Callable[[Image.Image], Tensor],
        views: int,
        seed: int,
        workers: int | None = None,
    ) -> None:
        self.images, self.labels, self.transform, self.preprocess = images, labels, transform, preprocess
        self.views = max(1, views) if transform is not None else 1
        self.seed = seed
        self.pool = decoding_pool(workers)
        self._expected: dict[tuple[int, int], Future[Tensor]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def batch(
        self, chosen: np.ndarray, epoch: int, generator: torch.Generator, own: range | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images (B V, 3, S, S) float32 and labels (B V,)."""
        rows = chosen if own is None else chosen[own.start : own.stop]
        self.expect(rows, epoch)
        decoded = torch.stack([self._expected.pop((index, epoch)).result() for index in rows.tolist()])
        labels = torch.from_numpy(self.labels[chosen].astype(np.int64)).repeat(self.views)
        return decoded.transpose(0, 1).flatten(0, 1), labels  # from (B, V, 3, S, S)

    def expect(self, chosen: np.ndarray, epoch: int) -> None:
        """Start to decode, in the pool's threads."""
        for index in chosen.tolist():
            if (index, epoch) not in self._expected:
                self._expected[index, epoch] = self.pool.submit(self._views, index, epoch)

    def _views(self, index: int, epoch: int) -> Tensor:
        """(V, 3, S, S) views of one photo."""
        photo = self.images.read(index)
        if self.transform is None:
            return self.preprocess(photo)[None]
        views = range(epoch * self.views, (epoch + 1) * self.views)
        return torch.stack(
            [self.transform(photo, view_generator(self.seed, self.images.keys[index], view)) for view in views]
        )


def decoding_pool(workers: int | None) -> ThreadPoolExecutor:
    """Threads that decode (Pillow releases the GIL while it decodes)."""
    count = min(16, os.cpu_count() or 1) if workers is None else max(1, workers)
    return ThreadPoolExecutor(count, thread_name_prefix="decode")


def readable_images(
    images: ImageSet,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[ImageSet, list[str]]:
    """The photos that can be decoded, and the keys of the others, so that no step fails on one of those.

    The ranks of a job try a part of them each.

    Raises:
        UserError: no photos, or more than 1 % of them that cannot be read.
    """
    if len(images) == 0:
        raise UserError(f"{images.source}: no images to train on")

    def is_readable(index: int) -> bool:
        try:
            images.read(index)
        except UnreadableImage:
            return False
        return True

    own = runs(len(images), ranks.size)[ranks.rank]
    readable: list[bool] = []
    with decoding_pool(workers) as pool:
        for can_be_read in pool.map(is_readable, own):
            readable.append(can_be_read)
            if progress is not None:
                progress(len(readable), len(own))
    flags = [flag for part in ranks.everyone(readable) for flag in part]
    good = [index for index, flag in enumerate(flags) if flag]
    bad = [images.keys[index] for index, flag in enumerate(flags) if not flag]
    if len(bad) > int(MAX_UNREADABLE_SHARE * len(images)):
        raise UserError(
            f"{len(bad)} of {len(images)} images of {images.source} cannot be read, more than 1 %: "
            f"{', '.join(bad[:3])}; replace or delete them"
        )
    return (images if not bad else images.subset(good)), bad
