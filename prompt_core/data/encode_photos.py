"""Photos through a frozen image tower into one .npy file: decoded by threads, encoded by batches, written by blocks.

The numbers depend neither on threads nor on earlier work: each view has its own random generator, and the batches of a
block are formed in the order of the image set. A run that was stopped goes on with the first block that it lacks.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from prompt_core.data.augment import view_generator
from prompt_core.data.feature_blocks import FeatureBlocks, block_positions
from prompt_core.data.images import ImageSet, UnreadableImage
from prompt_core.errors import UserError
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.visible import say

if TYPE_CHECKING:
    import random

    import torch
    from PIL import Image

MAX_UNREADABLE_SHARE = 0.01
# Views of a block, the most that an interruption loses: seconds of a large tower on a GPU, a minute or two on a CPU.
# Batches do not span blocks, so that another number gives other last bits.
BLOCK_VIEWS = 1024


class InVain(UserError):
    """Another run would end alike, so that nothing is kept for it."""


class ImageTower(Protocol):
    """The part of ``prompt_core.Clip`` that is needed here."""

    @property
    def image_fingerprint(self) -> str: ...

    @property
    def embed_dim(self) -> int: ...

    @property
    def preprocess(self) -> Callable[[Image.Image], torch.Tensor]: ...

    def encode_image(self, images: torch.Tensor) -> torch.Tensor: ...


class ViewTransform(Protocol):
    """A random transform whose draws all come from the generator, such as ``augment.TrainTransform``."""

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, image: Image.Image, generator: random.Random) -> torch.Tensor: ...


def write_features(
    folder: Path,
    clip: ImageTower,
    images: ImageSet,
    views: int,
    transform: ViewTransform | None,
    seed: int,
    batch_size: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    ranks: Ranks = ALONE,
) -> list[int]:
    """Write the features of ``images``, (readable photos, views, embedding) float16, by :class:`FeatureBlocks`.

    Blocks that an earlier call left in ``folder`` are kept, however many ranks made them. Ranks encode a block each at
    a time; the one that leads writes them. The arguments are those of
    :func:`prompt_core.data.feature_cache.cached_features`.

    Returns:
        the positions of the photos that could not be read.

    Raises:
        UserError: when the disk is too full.
        InVain: when more than 1 % of the photos cannot be read, or the tower gives non-finite features.
        OSError: when the files cannot be written.
    """
    total, size = len(images), max(1, BLOCK_VIEWS // views)
    allowed = int(MAX_UNREADABLE_SHARE * total)
    count = _Count(progress, total)
    decode = _decoder(clip, images, views, transform, seed)
    with contextlib.ExitStack() as files:
        blocks = None
        if ranks.leads:
            blocks = files.enter_context(FeatureBlocks(folder, total, size, views, clip.embed_dim))
            _say_what_is_there(folder, blocks, total)
        while True:
            known = (blocks.missing(), blocks.unreadable, blocks.photos_done) if blocks is not None else ([], [], 0)
            missing, bad, count.done = ranks.from_leader(known)
            if not missing:
                break
            own = [block_positions(number, size, total) for number in missing[ranks.rank :: ranks.size]]
            places = itertools.chain.from_iterable(own)
            with contextlib.closing(_ordered(decode, places, workers, batch_size // views + 1)) as tensors:
                for start in range(0, len(missing), ranks.size):
                    made = None
                    if start + ranks.rank < len(missing):
                        positions, left = own[start // ranks.size], allowed - len(bad)
                        made = _encode_block(clip, images, positions, tensors, batch_size, left, count)
                    of_all = ranks.collect(made)
                    stands = blocks is None or _put(blocks, missing[start:], of_all, bad, allowed)
                    of_others = missing[start + 1 : start + ranks.size]  # as the rank that leads sees it
                    count.add(sum(len(block_positions(number, size, total)) for number in of_others))
                    stands, bad = ranks.from_leader((stands, bad))
                    if not stands:
                        break  # the rows of later blocks have moved
            if len(bad) > allowed:
                first = ", ".join(images.keys[position] for position in sorted(bad)[:3])
                raise InVain(
                    f"{len(bad)} of {total} images of {images.source} cannot be read, more than 1 %: {first}, …; "
                    "replace or delete them"
                )
        if blocks is not None:
            blocks.finish()
        return bad


def _say_what_is_there(folder: Path, blocks: FeatureBlocks, total: int) -> None:
    needed, free = blocks.bytes_missing, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"the feature cache in {folder.parent} needs {needed:,} bytes, {free:,} are free on that disk")
    if blocks.photos_done:
        say(f"{blocks.photos_done:,} of {total:,} photos are encoded already; going on with the others", error=True)


def _put(
    blocks: FeatureBlocks,
    numbers: Sequence[int],
    made: Sequence[tuple[np.ndarray, list[int]] | None],
    bad: list[int],
    allowed: int,
) -> bool:
    """Write the blocks that the ranks have made, the first of ``numbers``; whether later ones stand.

    Args:
        bad: positions that could not be read, to which theirs are added; past ``allowed`` nothing is written.
    """
    for number, block in zip(numbers, made, strict=False):
        if block is None:  # of a rank for which none was left
            break
        features, unreadable = block
        bad += unreadable
        if len(bad) <= allowed and not blocks.put(number, features.reshape(-1, *blocks.shape), unreadable):
            return False
    return True


class _Count:
    """Photos that are done, told to whoever wants to show them."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.done, self._total, self._progress = 0, total, progress

    def add(self, photos: int = 1) -> None:
        self.done += photos
        if photos and self._progress is not None:
            self._progress(self.done, self._total)


def _decoder(
    clip: ImageTower, images: ImageSet, views: int, transform: ViewTransform | None, seed: int
) -> Callable[[int], torch.Tensor | None]:
    """A function of a position that gives the views of its photo (views, 3, S, S), None where it cannot be read."""
    import torch

    def decode(position: int) -> torch.Tensor | None:
        try:
            image = images.read(position)
        except UnreadableImage:
            return None
        if transform is None:
            return clip.preprocess(image)[None]
        generators = [view_generator(seed, images.keys[position], view) for view in range(views)]
        return torch.stack([transform(image, generator) for generator in generators])

    return decode


def _encode_block(
    clip: ImageTower,
    images: ImageSet,
    positions: Sequence[int],
    tensors: Iterator[torch.Tensor | None],
    batch_size: int,
    allowed: int,
    count: _Count,
) -> tuple[np.ndarray, list[int]]:
    """The features (views, embedding) of the next ``positions``, and those that could not be read.

    Past ``allowed`` of these nothing more is encoded; decoding continues to give the user the full count.
    """
    parts, pending, unreadable = [np.empty((0, clip.embed_dim), dtype="<f2")], [], []
    for position in positions:
        tensor = next(tensors)
        if tensor is None:
            unreadable.append(position)
        elif len(unreadable) <= allowed:
            pending.append(tensor)
        views = len(pending[0]) if pending else 0
        if pending and ((len(pending) + 1) * views > batch_size or position == positions[-1]):
            parts.append(_encode(clip, pending, images.source))
            pending = []
        count.add()
    return np.concatenate(parts), unreadable


def _encode(clip: ImageTower, pending: list[torch.Tensor], source: str) -> np.ndarray:
    """The features (views, embedding) float16 of the photos in ``pending``."""
    import torch

    batch = torch.cat(pending)
    device = getattr(clip, "device", None)
    with torch.inference_mode():
        features = clip.encode_image(batch if device is None else batch.to(device)).float().cpu().numpy()
    if features.shape != (len(batch), clip.embed_dim):
        raise InVain(f"the image tower gave {features.shape} features, expected {(len(batch), clip.embed_dim)}")
    if not np.isfinite(features).all():
        raise InVain(f"the image tower gave non-finite features for {source}; use a wider precision or other weights")
    return np.asarray(features, dtype="<f2")


def _ordered(
    work: Callable[[int], torch.Tensor | None], positions: Iterable[int], workers: int | None, ahead: int
) -> Generator[torch.Tensor | None, None, None]:
    """``work`` of each position, in order, computed by threads (Pillow releases the GIL while it decodes)."""
    count = min(16, os.cpu_count() or 1) if workers is None else workers
    if count < 1:
        yield from map(work, positions)
        return
    pool = ThreadPoolExecutor(count, thread_name_prefix="decode")
    waiting: deque[Future[torch.Tensor | None]] = deque()
    try:
        for position in positions:
            waiting.append(pool.submit(work, position))
            if len(waiting) >= ahead + count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
