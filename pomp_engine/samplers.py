"""Which image is seen when: mixed data sets, grouped batches, and streams that a resumed run re-enters in place.

Every stream here is a function of (seed, rank, number of ranks) alone. Batches are put together from image *indices*,
before any photo is read, so that a run resumed at iteration i skips the first i batches in seconds and continues with
exactly the batches that it would have had.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import Sampler


def sample_weights(
    sizes: Sequence[int], ratios: Sequence[float], repeat_factors: Sequence[Tensor | None] | None = None
) -> Tensor:
    """Weight of each image for drawing from several data sets at once (Detic).

    An image of data set d weighs ``max(sizes) / sizes[d] * ratios[d] / sum(ratios)`` times its repeat factor divided
    by the mean of the data set's repeat factors: the data sets' shares are ``ratios``, whatever their sizes.

    Args:
        sizes: number of images of each data set.
        ratios: share of each data set in the drawn images.
        repeat_factors: (size,) of each data set, or None for equal weights within it.

    Returns:
        (sum of sizes,) float64.

    Raises:
        ValueError: when the lists differ in length, or a data set is empty.
    """
    factors = [None] * len(sizes) if repeat_factors is None else list(repeat_factors)
    if not len(sizes) == len(ratios) == len(factors) or min(sizes) < 1:
        raise ValueError(f"{len(sizes)} data sets of sizes {list(sizes)}, {len(ratios)} ratios, {len(factors)} factors")
    parts = []
    for size, ratio, factor in zip(sizes, ratios, factors, strict=True):
        weight = torch.full((size,), max(sizes) / size * ratio / sum(ratios), dtype=torch.float64)
        if factor is not None:
            weight = weight * factor.double() / factor.double().mean()
        parts.append(weight)
    return torch.cat(parts)


class MultiDatasetSampler(Sampler[int]):
    """An infinite stream of indices drawn with replacement in proportion to weights, shared out among the ranks.

    Published files name it in ``DATALOADER.SAMPLER_TRAIN``.

    Args:
        weights: (n,) of :func:`sample_weights`.
        seed: the same on every rank; None draws one that all ranks share.
    """

    def __init__(self, weights: Tensor, seed: int | None = None) -> None:
        self._weights = weights
        self._seed = int(comm.shared_random_seed() if seed is None else seed)
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            drawn = torch.multinomial(self._weights, len(self._weights), replacement=True, generator=generator)
            yield from drawn.tolist()


def batch_groups(
    dataset_of_image: Sequence[int], landscape: Sequence[bool], by_dataset: bool = True, by_orientation: bool = True
) -> Tensor:
    """Group of each image; a batch holds images of one group.

    Args:
        dataset_of_image: (n,) number of the data set.
        landscape: (n,) whether the image is wider than tall; upright and square images form the other group.

    Returns:
        (n,) int64: ``2 * data set + upright``.
    """
    datasets = torch.as_tensor(dataset_of_image, dtype=torch.int64) if by_dataset else torch.zeros(len(landscape))
    upright = ~torch.as_tensor(landscape, dtype=torch.bool) if by_orientation else torch.zeros(len(landscape))
    return 2 * datasets.long() + upright.long()


class GroupedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (image index, draw number), each from one group, in the order in which the groups fill up.

    Does with indices what Detectron2's ``AspectRatioGroupedDataset`` does with loaded images. The draw number is the
    position in the rank's index stream: with the seed it determines the augmentation.

    Args:
        indices: an infinite stream of image indices of this rank.
        groups: (n,) group of each image.
        batch_sizes: images in a batch, one number for all groups or one for each data set (group // 2).
        start: number of batches to skip, which is the iteration that a resumed run begins with.
    """

    def __init__(
        self, indices: Iterable[int], groups: Tensor, batch_sizes: int | Sequence[int], start: int = 0
    ) -> None:
        self._indices = indices
        self._groups = groups.tolist()
        datasets = max(self._groups) // 2 + 1
        self._sizes = [batch_sizes] * datasets if isinstance(batch_sizes, int) else list(batch_sizes)
        if len(self._sizes) < datasets or min(self._sizes) < 1:
            raise ValueError(f"batch sizes {self._sizes} for {datasets} data sets")
        self._start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._batches(), self._start, None)

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[int, list[tuple[int, int]]] = {}
        for draw, index in enumerate(self._indices):
            group = self._groups[index]
            bucket = waiting.setdefault(group, [])
            bucket.append((index, draw))
            if len(bucket) == self._sizes[group // 2]:
                waiting[group] = []
                yield bucket
