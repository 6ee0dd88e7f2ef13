"""Image features of a frozen tower, computed once per (image, view) and cached under a hash of all their inputs.

``folder/<key>/features.npy`` is float16 (images, views, embedding) with unit-norm rows; ``index.json`` records what was
left out, where the numbers come from, and hashes of the numbers and of itself. An entry is published by one rename; a
damaged one is made anew.

``folder/<key>.part`` is what a run that was stopped has encoded: the next one goes on with it. A run that finds another
one at it encodes by itself, in a temporary folder, and the first to finish wins.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from prompt_core.data.encode_photos import ImageTower, ViewTransform, write_features
from prompt_core.data.feature_blocks import FEATURES
from prompt_core.data.feature_workshop import part_of, publish, workshop_of
from prompt_core.data.images import ImageSet
from prompt_core.documents.bounds import SMALL_BYTES
from prompt_core.documents.json_files import read_json
from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, sha256_of_json, write_json
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.visible import say

FORMAT_VERSION = 2  # 2: photos are turned as their Exif orientation says, 16 bits are scaled
_HASHED_BYTES = 1 << 24  # at once
_KEYS_WITHOUT_HASHES = frozenset(
    ("format", "images", "views", "embedding", "unreadable", "source", "clip", "transform", "seed", "created")
)


@dataclasses.dataclass(frozen=True, eq=False)
class CachedFeatures:
    """Features of the photos that could be read, in the order of the image set.

    Attributes:
        features: (n_ok, views, embedding) float16 memory map, read-only, unit-norm rows.
        labels: (n_ok,) int64.
        keys: n_ok keys of the image set.
        indices: (n_ok,) int64 positions in the image set.
        unreadable: keys of the photos that could not be decoded.
        folder: where the features are.
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
    ranks: Ranks = ALONE,
) -> CachedFeatures:
    """Load the features of ``images`` from ``folder``, or run the frozen image tower once per view and cache them.

    The numbers do not depend on ``workers``: each view has its own random generator, and batches are formed in the
    order of the image set. An interrupted run leaves nothing that looks complete, and the next one goes on with it; of
    two runs that fill the same entry at once, the first to finish wins.

    Args:
        clip: ``encode_image`` maps (B, 3, S, S) to unit-norm (B, E).
        views: augmented views per photo; 0 means one view through ``clip.preprocess``.
        transform: the random transform; None means ``clip.preprocess``, and then there is one view.
        seed: of the random views.
        folder: the cache; one subfolder per entry.
        batch_size: views per call of the image tower, at most (but always a whole photo).
        workers: threads that decode and transform; None takes one per core, at most 16; 0 works in this thread.
        progress: called with (photos done, total photos).
        ranks: the processes of a job, which encode together, each photo once; all must call with the same arguments,
            and see the same ``folder``.

    Raises:
        UserError: when there are no images, more than 1 % of them cannot be read (then nothing is cached), the tower
            gives non-finite features, or the cache cannot be written.
    """
    views, transform = _normalise(views, transform)
    if len(images) == 0:
        raise UserError(f"{images.source}: no images to encode")
    if batch_size < 1:
        raise UserError(f"batch_size = {batch_size}: expected at least 1")
    key = cache_key(clip, images, views, transform, seed)
    entry = Path(folder) / key

    def load() -> CachedFeatures | None:
        return _load(entry, images, views, clip.embed_dim)

    cached = load()
    if ranks.any(cached is None):
        # The rank that leads decides whether there is something to do, so that all do the same.
        if cached is None and ranks.leads:
            if entry.exists():
                say(f"warning: the feature cache entry {entry} is damaged; it is made anew", error=True)
            make_output_folder(folder)  # which also deletes what killed runs left there
        with workshop_of(entry) if ranks.leads else nullcontext(entry) as workshop:
            found = cached or (load() if ranks.leads else None)  # a run that was at it may have finished
            if ranks.from_leader(found is None):
                unreadable = write_features(
                    workshop, clip, images, views, transform, seed, batch_size, workers, progress, ranks
                )
                if ranks.leads:
                    _write_index(workshop / "entry", clip, images, views, transform, seed, unreadable)
                    publish(workshop / "entry", entry, lambda: load() is not None)
        ranks.wait()
    elif ranks.leads and part_of(entry).exists():  # its run was killed between its last steps
        with workshop_of(entry):
            pass
    cached = cached or load()
    if cached is None:
        raise UserError(
            f"the feature cache entry {entry} vanished while it was written; run again"
            + ("" if ranks.size == 1 else ", with a DATA.CACHE that all processes see")
        )
    return cached


def _normalise(views: int, transform: ViewTransform | None) -> tuple[int, ViewTransform | None]:
    if views < 0:
        raise UserError(f"views = {views}: expected a positive number, or 0 for CLIP's own preprocessing")
    return (1, None) if views == 0 or transform is None else (int(views), transform)


def _load(entry: Path, images: ImageSet, views: int, embedding: int) -> CachedFeatures | None:
    """The entry, or None when it is absent or damaged (it is then recomputed)."""
    try:
        index = read_json(entry / "index.json", SMALL_BYTES)
        features = np.load(entry / "features.npy", mmap_mode="r", allow_pickle=False)
        unreadable = [int(position) for position in index["unreadable"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not _is_whole(index):
        return None
    readable = np.ones(len(images), dtype=bool)
    if index.get("images") != len(images) or any(not 0 <= position < len(images) for position in unreadable):
        return None
    readable[unreadable] = False
    indices = np.flatnonzero(readable)
    if features.shape != (len(indices), views, embedding) or features.dtype != np.float16:
        return None
    if "features_sha256" in index and index["features_sha256"] != _sha256_of_rows(features):
        return None
    keys = images.keys if not unreadable else [images.keys[position] for position in indices.tolist()]
    return CachedFeatures(
        features, images.labels[indices], list(keys), indices, [images.keys[position] for position in unreadable], entry
    )


def _with_own_hash(index: dict[str, Any]) -> dict[str, Any]:
    return {**index, "index_sha256": sha256_of_json(index)}


def _is_whole(index: dict[str, Any]) -> bool:
    """Whether an index is what was written; those of before there were hashes have exactly the keys of then."""
    if index.keys() == _KEYS_WITHOUT_HASHES:
        return True
    stated = index.get("index_sha256")
    return stated == sha256_of_json({key: value for key, value in index.items() if key != "index_sha256"})


def _sha256_of_rows(features: np.ndarray) -> str:
    """sha256 of the numbers (n, S, E), read in parts."""
    digest = hashlib.sha256()
    rows = max(1, _HASHED_BYTES // max(1, features[:1].nbytes))
    for start in range(0, len(features), rows):
        digest.update(np.ascontiguousarray(features[start : start + rows]).data)
    return digest.hexdigest()


def _write_index(
    folder: Path,
    clip: ImageTower,
    images: ImageSet,
    views: int,
    transform: ViewTransform | None,
    seed: int,
    unreadable: list[int],
) -> None:
    index = {
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
        "features_sha256": _sha256_of_rows(np.load(folder / FEATURES, mmap_mode="r")),
    }
    write_json(folder / "index.json", _with_own_hash(index), durable=True)
