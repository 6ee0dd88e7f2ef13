"""Image features of a frozen tower, computed once per (image, view) and kept in a folder named by all that matters.

``folder/<key>/features.npy`` is float16 (images, views, embedding) with unit-norm rows; ``index.json`` says what was
left out and where the numbers come from.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np

from prompt_core.data.augment import view_generator
from prompt_core.data.feature_cache_files import HEADER_BYTES, npy_header, publish, remove_stale, writing_folder
from prompt_core.data.images import ImageSet, UnreadableImage
from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, sha256_of_json, write_json

if TYPE_CHECKING:
    import random

    import torch
    from PIL import Image

FORMAT_VERSION = 1
MAX_UNREADABLE_SHARE = 0.01


class ImageTower(Protocol):
    """What is needed of a CLIP model: see ``prompt_core.Clip``."""

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


@dataclasses.dataclass(frozen=True, eq=False)
class CachedFeatures:
    """Features of the photos that could be read, in the order of the image set.

    Attributes:
        features: (n_ok, views, embedding) float16 memory map, read-only, unit-norm rows.
        labels: (n_ok,) int64.
        keys: n_ok keys of the image set.
        indices: (n_ok,) int64 positions in the image set.
        unreadable: keys of the photos that could not be decoded.
        folder: where the features lie.
    """

    features: np.ndarray
    labels: np.ndarray
    keys: list[str]
    indices: np.ndarray
    unreadable: list[str]
    folder: Path

    def __len__(self) -> int:
        return len(self.keys)


def cache_key(clip: ImageTower, images: ImageSet, views: int, transform: ViewTransform | None, seed: int) -> str:
    """sha256 of everything that changes the features; the seed only where a random transform uses it."""
    views, transform = _normalise(views, transform)
    return sha256_of_json(
        {
            "format": FORMAT_VERSION,
            "images": images.fingerprint(),
            "clip": clip.image_fingerprint,
            "transform": None if transform is None else transform.fingerprint,
            "views": views,
            "seed": None if transform is None else int(seed),
        }
    )


def cached_features(
    clip: ImageTower,
    images: ImageSet,
    views: int,
    transform: ViewTransform | None,
    seed: int,
    folder: str | os.PathLike[str],
    batch_size: int = 32,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CachedFeatures:
    """Load the features of ``images`` from ``folder``, or run the frozen image tower once per view and keep them.

    The numbers do not depend on ``workers``: each view has its own random generator, and batches are formed in the
    order of the image set. A run that is stopped leaves nothing that looks complete; of two runs that fill the same
    entry at once, the first to finish is kept.

    Args:
        clip: ``encode_image`` maps (B, 3, S, S) to unit-norm (B, E).
        views: augmented views per photo; 0 means one view through ``clip.preprocess``.
        transform: the random transform; None means ``clip.preprocess``, and then there is one view.
        seed: of the random views.
        folder: the cache; one subfolder per entry.
        batch_size: views per call of the image tower, at most (but always a whole photo).
        workers: threads that decode and transform; None takes one per core, at most 16; 0 works in this thread.
        progress: called with (photos done, photos in all).

    Raises:
        UserError: when there are no images, more than 1 % of them cannot be read (nothing is kept then), the tower
            gives non-finite features, or the cache cannot be written.
    """
    views, transform = _normalise(views, transform)
    if len(images) == 0:
        raise UserError(f"{images.source}: no images to encode")
    if batch_size < 1:
        raise UserError(f"batch_size = {batch_size}: expected at least 1")
    key = cache_key(clip, images, views, transform, seed)
    entry = Path(folder) / key
    cached = _load(entry, images, views, clip.embed_dim)
    if cached is not None:
        return cached
    make_output_folder(folder)
    remove_stale(Path(folder), key)
    with writing_folder(entry) as temporary:
        unreadable = _fill(temporary, clip, images, views, transform, seed, batch_size, workers, progress)
        write_json(
            temporary / "index.json",
            {
                "format": FORMAT_VERSION,
                "images": len(images),
                "views": views,
                "embedding": clip.embed_dim,
                "unreadable": unreadable,
                "source": images.source,
                "clip": clip.image_fingerprint,
                "transform": None if transform is None else transform.fingerprint,
                "seed": None if transform is None else int(seed),
                "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            },
        )
        publish(temporary, entry, lambda: _load(entry, images, views, clip.embed_dim) is not None)
    cached = _load(entry, images, views, clip.embed_dim)
    if cached is None:
        raise UserError(f"the feature cache entry {entry} vanished while it was written; run again")
    return cached


def _normalise(views: int, transform: ViewTransform | None) -> tuple[int, ViewTransform | None]:
    if views < 0:
        raise UserError(f"views = {views}: expected a positive number, or 0 for CLIP's own preprocessing")
    return (1, None) if views == 0 or transform is None else (int(views), transform)


def _load(entry: Path, images: ImageSet, views: int, embedding: int) -> CachedFeatures | None:
    """The entry, or None when it is absent or damaged (it is then made anew)."""
    try:
        index = json.loads((entry / "index.json").read_text(encoding="utf-8"))
        features = np.load(entry / "features.npy", mmap_mode="r", allow_pickle=False)
        unreadable = [int(position) for position in index["unreadable"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    readable = np.ones(len(images), dtype=bool)
    if index.get("images") != len(images) or any(not 0 <= position < len(images) for position in unreadable):
        return None
    readable[unreadable] = False
    indices = np.flatnonzero(readable)
    if features.shape != (len(indices), views, embedding) or features.dtype != np.float16:
        return None
    keys = images.keys if not unreadable else [images.keys[position] for position in indices]
    return CachedFeatures(
        features, images.labels[indices], list(keys), indices, [images.keys[position] for position in unreadable], entry
    )


def _fill(
    temporary: Path,
    clip: ImageTower,
    images: ImageSet,
    views: int,
    transform: ViewTransform | None,
    seed: int,
    batch_size: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[int]:
    """Write ``features.npy``; return the positions of the photos that could not be read."""
    import torch

    total = len(images)
    needed = HEADER_BYTES + total * views * clip.embed_dim * 2
    free = shutil.disk_usage(temporary).free
    if needed > free:
        raise UserError(
            f"the feature cache in {temporary.parent} needs {needed:,} bytes, {free:,} are free on that disk"
        )
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

    with open(temporary / "features.npy", "wb") as stream:
        stream.write(npy_header((0, views, clip.embed_dim)))
        for position, tensor in enumerate(_ordered(decode, total, workers, batch_size // views + 1)):
            if tensor is None:
                unreadable.append(position)
            # past the limit nothing is encoded any more; reading on gives the user the full count
            elif len(unreadable) <= allowed:
                pending.append(tensor)
            if pending and ((len(pending) + 1) * views > batch_size or position == total - 1):
                rows += _encode(clip, pending, stream, images.source)
                pending = []
            if progress is not None:
                progress(position + 1, total)
        if pending:
            rows += _encode(clip, pending, stream, images.source)
        if len(unreadable) > allowed:
            first = ", ".join(images.keys[position] for position in unreadable[:3])
            raise UserError(
                f"{len(unreadable)} of {total} images of {images.source} cannot be read, more than 1 %: {first}, …; "
                "replace or delete them"
            )
        stream.seek(0)
        stream.write(npy_header((rows, views, clip.embed_dim)))
        stream.flush()
        os.fsync(stream.fileno())
    return unreadable


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
    """``work(0) … work(total - 1)`` in order, computed by threads (Pillow frees the interpreter while it works)."""
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
