"""``datasets/prepare.py imagenet21k``: a few photos of each class as shards of bounded size, from any form of the data.

A shard's bytes depend on the photos alone. A run that is stopped goes on with the first shard that is not whole.
"""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.open_photo import UnreadableImage, open_photo
from prompt_core.data.readers.prepared_shards import Manifest, Shard, is_whole, manifest_file, read_manifest
from prompt_core.data.readers.winter_21 import imagenet21k
from prompt_core.data.splits import few_shot
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, write_sealed_json
from prompt_core.runs.lock import alone_in
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

SHARD_BYTES = 1 << 30
_AT_ONCE = 64  # photos that are in memory


@dataclass(frozen=True)
class ShardOptions:
    """What is written.

    Attributes:
        split: train or val.
        shots: photos of each class at most, -1 for all.
        seed: of the choice; a training of this SEED chooses the same.
        shard_bytes: of a shard at most; one photo is always taken.
        workers: threads that read and decode.
        overwrite: replace shards of other photos.
    """

    split: str = "train"
    shots: int = 16
    seed: int = 42
    shard_bytes: int = SHARD_BYTES
    workers: int = 8
    overwrite: bool = False


def prepare_shards(source: str, output: Path, options: ShardOptions | None = None) -> tuple[dict[Path, str], list[str]]:
    """Write ``output/imagenet21k_train-00000.tar``, … and what :func:`prepared_shards` reads them with.

    A photo that cannot be decoded is written as it is, so that the photos are those of ``source``; it is counted.

    Args:
        source: as :func:`prompt_core.data.readers.winter_21.imagenet21k` takes it.

    Returns:
        what was done for each shard, and notes.

    Raises:
        UserError: when the source is damaged or a photo is missing, or shards of other photos are there.
    """
    options = options or ShardOptions()
    images = few_shot(imagenet21k(source, options.split), options.shots, options.seed)
    sizes = images.file_sizes()
    if len(missing := np.flatnonzero(sizes < 0)):
        raise UserError(f"{len(missing):,} photos of {source} are missing, the first is {images.keys[missing[0]]}")
    part = images.keys[0].partition("/")[0]
    shards, ranges = _plan(images, sizes, part, options.shard_bytes)
    wanted = Manifest(
        part, options.shots, options.seed, images.fingerprint(), len(images), len(images.ids), list(shards)
    )
    make_output_folder(output)
    with alone_in(output):
        manifest = _agreed(output, wanted, options.overwrite)
        _save_classes(output, images, options.overwrite)
        made: dict[Path, str] = {}
        for number, (shard, photos) in enumerate(zip(manifest.shards, ranges, strict=True)):
            if is_whole(output, shard):
                made[output / shard.file] = "nothing to do"
                continue
            shard.unreadable = _write_shard(output / shard.file, images, photos, shard.bytes, options.workers)
            write_sealed_json(manifest_file(output, part), msgspec.to_builtins(manifest), durable=True)
            made[output / shard.file] = f"written, {shard.photos:,} photos, {shard.bytes:,} bytes"
            say(f"{number + 1} of {len(ranges)} shards", error=True)
    return made, _notes(manifest, images, options.shots)


def _plan(images: ImageSet, sizes: np.ndarray, part: str, limit: int) -> tuple[list[Shard], list[range]]:
    """The shards, and the photos of each: as many as fit, in their order."""
    costs = np.array([_cost(*pair) for pair in zip(images.keys, sizes.tolist(), strict=True)], dtype=np.int64)
    shards, ranges, start = list[Shard](), list[range](), 0
    while start < len(costs):
        totals = np.cumsum(costs[start:])
        count = max(1, int(np.searchsorted(totals, limit - 2 * tarfile.RECORDSIZE, side="right")))
        size = -(-(int(totals[count - 1]) + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
        shards.append(Shard(f"{part}-{len(shards):05d}.tar", size, count))
        ranges.append(range(start, start + count))
        start += count
    return shards, ranges


def _cost(key: str, size: int) -> int:
    """Bytes that a photo and its label take in an archive."""
    headers = sum(len(_header(name, 0).tobuf(tarfile.GNU_FORMAT)) for name in (key, _label_name(key)))
    return headers + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE + tarfile.BLOCKSIZE


def _header(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _label_name(key: str) -> str:
    folder, _, name = key.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}.cls"


def _agreed(output: Path, wanted: Manifest, overwrite: bool) -> Manifest:
    """The list that is there, if it is of the wanted photos; else the wanted one, which is written.

    Raises:
        UserError: when shards of other photos are there.
    """
    path = manifest_file(output, wanted.part)
    try:
        there = read_manifest(output, wanted.part)
    except UserError:
        if not overwrite:
            raise
        there = None
    if there is not None:
        fresh = [msgspec.structs.replace(shard, unreadable=None) for shard in there.shards]
        if msgspec.structs.replace(there, shards=fresh) == wanted:
            return there
        if not overwrite:
            raise UserError(
                f"{output} holds {there.photos:,} other photos ({there.shots} shots, seed {there.seed}) or shards of "
                "another size; choose another --output, or give --overwrite"
            )
    old = sorted(output.glob(f"{wanted.part}-*.tar"))
    if old and not overwrite:
        raise UserError(f"{old[0]} is in the way, and {path.name} does not list it; remove it, or give --overwrite")
    path.unlink(missing_ok=True)
    for file in old:
        file.unlink()
    write_sealed_json(path, msgspec.to_builtins(wanted), durable=True)
    return wanted


def _save_classes(output: Path, images: ImageSet, overwrite: bool) -> None:
    path = output / "classes.json"
    vocabulary = Vocabulary(images.names, ids=images.ids, source=images.source)
    if path.is_file() and not overwrite and Vocabulary.load(path) != vocabulary:
        raise UserError(f"{path} lists other classes; choose another --output, or give --overwrite")
    vocabulary.save(path)


def _write_shard(path: Path, images: ImageSet, photos: range, size: int, workers: int) -> list[str]:
    """Write one shard; returns the keys of the photos in it that cannot be decoded."""
    unreadable: list[str] = []
    with atomic_path(path, durable=True, size=size) as temporary, ThreadPoolExecutor(max(1, workers)) as pool:
        with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as archive:
            for start in range(photos.start, photos.stop, _AT_ONCE):
                chosen = range(start, min(start + _AT_ONCE, photos.stop))
                for index, (content, readable) in zip(
                    chosen, pool.map(lambda i: _read(images, i), chosen), strict=True
                ):
                    key, label = images.keys[index], str(images.labels[index]).encode()
                    archive.addfile(_header(key, len(content)), io.BytesIO(content))
                    archive.addfile(_header(_label_name(key), len(label)), io.BytesIO(label))
                    if not readable:
                        unreadable.append(key)
        written = temporary.stat().st_size
        if written != size:
            raise UserError(f"{path.name} would have {written:,} bytes, {size:,} were expected: a photo has changed")
    return unreadable


def _read(images: ImageSet, index: int) -> tuple[bytes, bool]:
    """The bytes of a photo, and whether it can be decoded."""
    content = images.read_bytes(index)
    try:
        open_photo(content, images.keys[index])
    except UnreadableImage:
        return content, False
    return content, True


def _notes(manifest: Manifest, images: ImageSet, shots: int) -> list[str]:
    counts = np.bincount(images.labels, minlength=len(images.ids))
    size = sum(shard.bytes for shard in manifest.shards)
    notes = [
        f"{manifest.photos:,} photos of {manifest.classes:,} classes in {len(manifest.shards)} shards, {size:,} bytes"
    ]
    if shots != -1 and len(few := np.flatnonzero(counts < shots)):
        notes.append(f"{len(few):,} classes have fewer than {shots} photos, the first is {images.ids[few[0]]}")
    if unreadable := [key for shard in manifest.shards for key in shard.unreadable or ()]:
        notes.append(
            f"{len(unreadable):,} photos cannot be decoded; they are there as they are, and training leaves them out: "
            f"{', '.join(unreadable[:3])}{', …' if len(unreadable) > 3 else ''}"
        )
    return notes
