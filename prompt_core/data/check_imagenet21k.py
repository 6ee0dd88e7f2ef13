"""What is there of ImageNet-21K and what is missing, by classes, archives and shards; no photo is opened."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from prompt_core.data.catalog.entry import Seen
from prompt_core.data.photo_files import is_file, is_folder, list_folders
from prompt_core.data.photo_index import PhotoIndex, read_index
from prompt_core.data.readers.class_tars import (
    archive_files,
    archives_in,
    has_archives,
    index_folder,
    processed_wnids,
    synsets,
)
from prompt_core.data.readers.folder import WNID
from prompt_core.data.readers.prepared_shards import PARTS, lacking, manifest_file, read_manifest
from prompt_core.vocabulary import Vocabulary

SHOWN = 5  # of a list; the rest is counted


def inspect_imagenet21k(text: str) -> list[Seen]:
    """A row for each part of the data: folders of the processed release, prepared shards, or archives.

    Args:
        text: a folder, an archive or a pattern, as :func:`prompt_core.data.readers.winter_21.imagenet21k` takes it.

    Raises:
        UserError: when what is there cannot be read.
    """
    folder = Path(text.removesuffix("#small"))
    inner = folder / "imagenet21k_resized"
    folder = inner if not is_folder(folder / PARTS[0]) and is_folder(inner) else folder
    seen = [_folders(folder, part) for part in PARTS if is_folder(folder / part)]
    seen += [_shards(folder, part) for part in PARTS if is_file(manifest_file(folder, part))]
    if not seen and has_archives(text.removesuffix("#small")):
        return _archives(text.removesuffix("#small"))
    return seen


def _folders(folder: Path, part: str) -> Seen:
    wnids = {name for name in list_folders(folder / part) if WNID.fullmatch(name)}
    if part == PARTS[2]:
        unknown = sorted(wnids - synsets())
        return Seen(folder / part, f"{len(wnids):,} small classes" + _listed("unknown", unknown), not unknown)
    right, words = _classes(wnids)
    return Seen(folder / part, words, right)


def _shards(folder: Path, part: str) -> Seen:
    manifest = read_manifest(folder, part)
    assert manifest is not None
    missing = lacking(folder, manifest)
    right, words = _classes(map(str, Vocabulary.load(folder / "classes.json").ids or ()))
    shots = "all photos" if manifest.shots == -1 else f"{manifest.shots} shots of seed {manifest.seed}"
    unreadable = [key for shard in manifest.shards for key in shard.unreadable or ()]
    text = f"{len(manifest.shards)} shards, {manifest.photos:,} photos, {shots}; {words}"
    text += _listed("shards missing or not whole", missing) + _listed("photos cannot be decoded", unreadable)
    return Seen(manifest_file(folder, part), text, right and not missing, opens=not missing)


def _archives(text: str) -> list[Seen]:
    files = archive_files(text)
    place = index_folder(text, files)
    index = read_index(place, files)
    if index is not None:
        return [_indexed(index)]
    faults: list[str] = []
    names = [archive.name.partition(".")[0] for archive in archives_in(files, faults)]
    right, words = _classes(name for name in names if WNID.fullmatch(name))
    by_class = f"{words}; " if any(WNID.fullmatch(name) for name in names) else ""
    count = f"{len(names):,} archives; {by_class}not indexed yet: datasets/check.py imagenet21k:{text} does it"
    return [Seen(place, count + _listed("faults", faults), right and not faults, opens=False)]


def _indexed(index: PhotoIndex) -> Seen:
    right, words = _classes(index.classes)
    text = f"{len(index.places):,} photos of {len(index.classes):,} classes; {words}"
    if index.others:
        text += f"; {index.others:,} other members"
    if index.fault_count:
        more = f"; and {index.fault_count - len(index.faults):,} more" if index.fault_count > len(index.faults) else ""
        text += f"; {index.fault_count:,} faults: {'; '.join(index.faults)}{more}"
    return Seen(index.folder, text, right and not index.fault_count)


def _classes(there: Iterable[str]) -> tuple[bool, str]:
    """Whether all classes of the processed release are there, and a text on that."""
    known, wanted = set(there), processed_wnids()
    missing = [wnid for wnid in wanted if wnid not in known]
    unknown = sorted(known - synsets())
    text = f"{len(wanted) - len(missing):,} of {len(wanted):,} classes of the processed release"
    return not missing and not unknown, text + _listed("missing", missing) + _listed("unknown", unknown)


def _listed(what: str, names: Collection[str]) -> str:
    if not names:
        return ""
    shown = ", ".join([*names][:SHOWN])
    return f"; {len(names):,} {what}: {shown}{', …' if len(names) > SHOWN else ''}"
