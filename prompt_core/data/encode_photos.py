"""Photos through a frozen image tower into one .npy file: decoded by threads, encoded and written batch by batch.

The numbers depend neither on threads nor on earlier work: each view has its own random generator, and batches are
formed in the order of the image set.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np

from prompt_core.data.augment import view_generator
from prompt_core.data.images import ImageSet, UnreadableImage
from prompt_core.errors import UserError

if TYPE_CHECKING:
    import random

    import torch
    from PIL import Image

MAX_UNREADABLE_SHARE = 0.01


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
    path: Path,
    clip: ImageTower,
    images: ImageSet,
    views: int,
    transform: ViewTransform | None,
    seed: int,
    batch_size: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[int]:
    """Write the features of ``images`` to ``path``, (readable photos, views, embedding) float16.

    The arguments are those of :func:`prompt_core.data.feature_cache.cached_features`.

    Returns:
        the positions of the photos that could not be read.

    Raises:
        UserError: when these are more than 1 %, the disk is too full, or the tower gives non-finite features.
    """
    import torch

    total = len(images)
    allowed = int(MAX_UNREADABLE_SHARE * total)
    unreadable: list[int] = []
    rows = 0
    pending: list[torch.Tensor] = []

    def decode(position: int) -> torch.Tensor | None:
        try:
            image = images.read(position)
        except UnreadableImage:
            return None
        if transform is None:
            return clip.preprocess(image)[None]
        generators = [view_generator(seed, images.keys[position], view) for view in range(views)]
        return torch.stack([transform(image, generator) for generator in generators])

    with open(path, "wb") as stream:
        _write_header(stream, (0, views, clip.embed_dim))
        needed, free = stream.tell() + total * views * clip.embed_dim * 2, shutil.disk_usage(path.parent).free
        if needed > free:
            cache = path.parent.parent
            raise UserError(f"the feature cache in {cache} needs {needed:,} bytes, {free:,} are free on that disk")
        for position, tensor in enumerate(_ordered(decode, total, workers, batch_size // views + 1)):
            if tensor is None:
                unreadable.append(position)
            # past the limit nothing more is encoded; decoding continues to give the user the full count
            elif len(unreadable) <= allowed:
                pending.append(tensor)
            if pending and ((len(pending) + 1) * views > batch_size or position == total - 1):
                rows += _encode(clip, pending, stream, images.source)
                pending = []
            if progress is not None:
                progress(position + 1, total)
        if len(unreadable) > allowed:
            first = ", ".join(images.keys[position] for position in unreadable[:3])
            raise UserError(
                f"{len(unreadable)} of {total} images of {images.source} cannot be read, more than 1 %: {first}, …; "
                "replace or delete them"
            )
        stream.seek(0)
        _write_header(stream, (rows, views, clip.embed_dim))
        stream.flush()
        os.fsync(stream.fileno())
    return unreadable


def _write_header(stream: IO[bytes], shape: tuple[int, int, int]) -> None:
    """NumPy's header with room for a growing first axis: it is rewritten when the number of rows is known."""
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f2", "fortran_order": False, "shape": shape})


def _encode(clip: ImageTower, pending: list[torch.Tensor], stream: IO[bytes], source: str) -> int:
    """Append the float16 features of the photos in ``pending``; return how many photos that were."""
    import torch

    batch = torch.cat(pending)
    device = getattr(clip, "device", None)
    with torch.inference_mode():
        features = clip.encode_image(batch if device is None else batch.to(device)).float().cpu().numpy()
    if features.shape != (len(batch), clip.embed_dim):
        raise UserError(f"the image tower gave {features.shape} features, expected {(len(batch), clip.embed_dim)}")
    if not np.isfinite(features).all():
        raise UserError(
            f"the image tower gave non-finite features for {source}; use a wider precision or other weights"
        )
    stream.write(np.ascontiguousarray(features, dtype="<f2").tobytes())
    return len(pending)


def _ordered(
    work: Callable[[int], torch.Tensor | None], total: int, workers: int | None, ahead: int
) -> Iterator[torch.Tensor | None]:
    """``work(0) … work(total - 1)`` in order, computed by threads (Pillow releases the GIL while it decodes)."""
    count = min(16, os.cpu_count() or 1) if workers is None else workers
    if count < 1:
        yield from map(work, range(total))
        return
    pool = ThreadPoolExecutor(count, thread_name_prefix="decode")
    waiting: deque[Future[torch.Tensor | None]] = deque()
    try:
        for position in range(total):
            waiting.append(pool.submit(work, position))
            if len(waiting) >= ahead + count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
