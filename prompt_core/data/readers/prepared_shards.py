"""Shards that ``datasets/prepare.py imagenet21k`` wrote: read as what they were made of, with the same keys.

::

    imagenet21k_train-00000.tar  imagenet21k_train/n01440764/n01440764_10026.JPEG and its .cls, as WebDataset has them
    imagenet21k_train.json       the shards, with their bytes and photos, and those photos that cannot be decoded
    classes.json                 names and ids
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import is_file
from prompt_core.data.readers.webdataset import photos_in_shards
from prompt_core.data.splits import NoSuchSplit
from prompt_core.errors import UserError
from prompt_core.files import read_sealed_json


class Shard(msgspec.Struct):
    """One shard. ``unreadable`` are the keys of photos that cannot be decoded, None before it is written."""

    file: str
    bytes: int
    photos: int
    unreadable: list[str] | None = None


class Manifest(msgspec.Struct):
    """What is in a folder of prepared shards.

    Attributes:
        part: ``imagenet21k_train``, ``imagenet21k_val`` or ``imagenet21k_small_classes``.
        shots: photos of each class at most, -1 for all.
        seed: by which they were chosen.
        images_sha256: fingerprint of the photos.
        photos: how many these are.
        classes: number of classes.
        shards: in their order.
    """

    part: str
    shots: int
    seed: int
    images_sha256: str
    photos: int
    classes: int
    shards: list[Shard]


def manifest_file(folder: Path, part: str) -> Path:
    """Path of the list of the shards of a part."""
    return folder / f"{part}.json"


def read_manifest(folder: Path, part: str) -> Manifest | None:
    """What a folder should hold, or None where nothing was prepared.

    Raises:
        UserError: when the list is damaged.
    """
    path = manifest_file(folder, part)
    if not is_file(path):
        return None
    try:
        return msgspec.convert(read_sealed_json(path), Manifest)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} is no list of prepared shards: {error}") from error


def lacking(folder: Path, manifest: Manifest) -> list[str]:
    """Shards that are absent, not whole, or were not written yet."""
    return [shard.file for shard in manifest.shards if not is_whole(folder, shard)]


def is_whole(folder: Path, shard: Shard) -> bool:
    """Whether a shard was written, and has as many bytes."""
    path = folder / shard.file
    return shard.unreadable is not None and is_file(path) and path.stat().st_size == shard.bytes


def holds_prepared_shards(folder: Path) -> bool:
    """Whether a folder has the list of any part."""
    return any(is_file(manifest_file(folder, part)) for part in PARTS)


def prepared_shards(folder: Path, part: str) -> ImageSet:
    """The photos of a part.

    Raises:
        NoSuchSplit: when the part was not prepared.
        UserError: when some of its shards are missing.
    """
    manifest = read_manifest(folder, part)
    if manifest is None:
        there = [other for other in PARTS if is_file(manifest_file(folder, other))]
        raise NoSuchSplit(f"{folder} holds shards of {', '.join(there)}, none of {part}; prepare these too")
    if missing := lacking(folder, manifest):
        raise UserError(
            f"{len(missing)} of {len(manifest.shards)} shards in {folder} are missing or not whole, the first is "
            f"{missing[0]}; run the same datasets/prepare.py imagenet21k again"
        )
    images = photos_in_shards([folder / shard.file for shard in manifest.shards], part)
    if len(images) != manifest.photos:
        raise UserError(f"{folder} has {len(images):,} photos in {part}; its list has {manifest.photos:,}")
    keys = [key.partition("/")[2] for key in images.keys]
    shots = "all photos" if manifest.shots == -1 else f"{manifest.shots} shots of seed {manifest.seed}"
    source = f"imagenet21k:{part.removeprefix('imagenet21k_')} ({shots}, prepared)"
    return dataclasses.replace(images, keys=keys, source=source)


PARTS = ("imagenet21k_train", "imagenet21k_val", "imagenet21k_small_classes")
