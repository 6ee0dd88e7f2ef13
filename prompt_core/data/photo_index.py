"""Where the photos of large archives lie: an index beside them, built once, of which little is in memory.

``INDEX/`` has, for n photos of C classes, sorted by class and name::

    index.json     the archives with sizes, times and hashes of their ends; classes, photos of each; what was wrong
    places.npy     (n, 3) int64: file, offset and size in bytes
    names.npy      the names one behind the other; ends.npy: where each ends
    progress.jsonl while it is built: a line with a checksum for each archive that has been read

A run that is stopped goes on with the first archive that has no whole line. An archive that has changed (another size,
or another time and other ends) is noticed, and its index is built anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from prompt_core.data.photo_keys import KeyPacker
from prompt_core.data.tar_members import ARCHIVE_BYTES
from prompt_core.documents.bounds import check_size
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, read_sealed_json, write_sealed_json
from prompt_core.runs.lock import LOCK_FILE, alone_in
from prompt_core.visible import say, visible

VERSION = 1
INDEX, PROGRESS = "index.json", "progress.jsonl"
HASHED_ENDS = 1 << 16  # bytes at either end of an archive that tell it from another of its size
LISTED = 1000  # faults that are kept with their text; all are counted
SAID_EVERY = 500  # archives
WAIT = 1.0  # seconds
_FAULTS = ("faults", "fault_count", "others")


class Archive(msgspec.Struct, frozen=True):
    """A tar archive: a file, or a member of one.

    Attributes:
        name: of the file or member, without bytes that are no text.
        file: number of the file.
        start: its first byte there.
        size: in bytes.
    """

    name: str
    file: int
    start: int
    size: int


class ArchivePhotos(msgspec.Struct):
    """The photos of an archive.

    Attributes:
        archive: which one.
        classes: class of each photo, such as ``n01440764``.
        names: of each photo in its class.
        offsets: of each photo in the file, in bytes.
        sizes: of each photo, in bytes.
        faults: a line for each thing that is wrong; photos that are whole are there nevertheless.
        others: members that are no photos.
    """

    archive: Archive
    classes: list[str]
    names: list[str]
    offsets: list[int]
    sizes: list[int]
    faults: list[str] = msgspec.field(default_factory=list)
    others: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoIndex:
    """An index that was read; the arrays are memory maps.

    Attributes:
        folder: where it is.
        classes: C classes, sorted.
        counts: (C,) photos of each.
        places: (n, 3) int64: file, offset, size.
        text, ends: names, as in :class:`prompt_core.data.photo_keys.PhotoKeys`.
        faults: what was wrong in the archives, the first 1,000.
        fault_count: how many these are in all.
        others: members that were no photos.
    """

    folder: Path
    classes: list[str]
    counts: np.ndarray
    places: np.ndarray
    text: np.ndarray
    ends: np.ndarray
    faults: list[str]
    fault_count: int
    others: int

    @property
    def starts(self) -> np.ndarray:
        """(C + 1,) first photo of each class, and n."""
        return np.concatenate([[0], np.cumsum(self.counts)])


Read = Callable[[Archive], ArchivePhotos]


def photo_index(
    folder: Path, files: Sequence[Path], archives: Callable[[list[str]], Iterator[Archive]], read: Read
) -> PhotoIndex:
    """The index in ``folder`` of the archives in ``files``; built where it is absent, unfinished or of other files.

    Of several processes one builds it, and the others wait.

    Args:
        archives: iterates over the archives, given a list that takes lines on what is wrong with the files.
        read: lists the photos of one.

    Raises:
        UserError: when there is no photo, something is no file, the folder cannot be written, or the archives change.
    """
    waits = False
    while (found := read_index(folder, files)) is None:
        try:
            with alone_in(folder, again=False):
                if read_index(folder, files) is None:  # a run that was at it may have ended
                    _build(folder, files, archives, read)
        except UserError:
            if not (folder / LOCK_FILE).exists():
                raise
            if not waits:
                say(f"another run builds {folder}; waiting for it", error=True)
            waits = True
            time.sleep(WAIT)
    return found


def read_index(folder: Path, files: Sequence[Path]) -> PhotoIndex | None:
    """The index in ``folder``, or None where it is absent, damaged or not of ``files`` as they are."""
    try:
        index: dict[str, Any] = read_sealed_json(folder / INDEX)
        places, text, ends = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("places", "names", "ends")
        )
        counts = np.array(list(index["photos"].values()), dtype=np.int64)
        found = PhotoIndex(folder, list(index["photos"]), counts, places, text, ends, *(index[key] for key in _FAULTS))
        fits = len(places) == len(ends) == counts.sum() and len(text) == index["text_bytes"]
        whole = fits and index["version"] == VERSION and _are_these(files, index["files"], found.fault_count == 0)
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if whole else None


def _stamps(files: Sequence[Path]) -> list[list[Any]]:
    """Name, size, time and hash of the ends of each file."""
    stamps = []
    for path in files:
        size = check_size(path, ARCHIVE_BYTES)  # a pipe has no end
        stamps.append([visible(path.name), size, path.stat().st_mtime_ns, _hash_of_ends(path, size)])
    return stamps


def _hash_of_ends(path: Path, size: int) -> str:
    with open(path, "rb") as stream:
        digest = hashlib.sha256(stream.read(HASHED_ENDS))
        stream.seek(max(0, size - HASHED_ENDS))
        digest.update(stream.read(HASHED_ENDS))
    return digest.hexdigest()


def _are_these(files: Sequence[Path], stamps: Sequence[Sequence[Any]], may_be_copies: bool) -> bool:
    """Whether files are those of the stamps.

    Args:
        may_be_copies: accept another time where the ends are the same. What had faults may have been completed since: a
            download may have its last size from the beginning.
    """
    if len(files) != len(stamps):
        return False
    for path, (name, size, changed, ends) in zip(files, stamps, strict=True):
        status = path.stat()
        if visible(path.name) != name or status.st_size != size:
            return False
        if status.st_mtime_ns != changed and not (may_be_copies and _hash_of_ends(path, size) == ends):
            return False
    return True


def _build(folder: Path, files: Sequence[Path], archives: Callable[[list[str]], Iterator[Archive]], read: Read) -> None:
    if (folder / INDEX).exists():
        say(f"{folder} is damaged, or its archives have changed since; it is built anew", error=True)
        (folder / INDEX).unlink()
    stamps, faults = _stamps(files), list[str]()
    with open(folder / PROGRESS, "a+b") as progress:
        done = {part.archive for part in _lines(progress, stamps)}
        progress.truncate()  # behind the last whole line
        if progress.tell() == 0:
            _write_line(progress, msgspec.json.encode(stamps))
        for number, archive in enumerate(archives(faults)):
            if archive not in done:
                _write_line(progress, msgspec.json.encode(read(archive)))
            if number % SAID_EVERY == SAID_EVERY - 1:
                say(f"{folder.name}: {number + 1:,} archives read", error=True)
        _finish(folder, stamps, _lines(progress, stamps), faults)
    (folder / PROGRESS).unlink()
    if _stamps(files) != stamps:
        (folder / INDEX).unlink()
        raise UserError(f"the archives changed while {folder} was built; run again when they are whole")


def _write_line(stream: Any, content: bytes) -> None:
    stream.write(b"%08x %s\n" % (zlib.crc32(content), content))
    stream.flush()


def _lines(stream: Any, stamps: list[list[Any]]) -> Iterator[ArchivePhotos]:
    """The whole lines, if they are of these files; the stream stands behind the last one that is good."""
    good = 0
    stream.seek(0)
    for number, line in enumerate(stream):
        checksum, _, content = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content):
            break
        if number == 0:
            if msgspec.json.decode(content) != stamps:
                break
        else:
            yield msgspec.json.decode(content, type=ArchivePhotos)
        good += len(line)
    stream.seek(good)


def _finish(folder: Path, stamps: list[list[Any]], parts: Iterator[ArchivePhotos], faults: list[str]) -> None:
    """Sort what was read by class and name, and write it."""
    packer, number_of, others = KeyPacker(), dict[str, int](), 0
    class_of, places = [np.empty(0, np.int32)], [np.empty((0, 3), np.int64)]
    for part in parts:
        count = packer.add("", part.names)
        class_of.append(np.array([number_of.setdefault(name, len(number_of)) for name in part.classes], np.int32))
        places.append(np.stack([np.full(count, part.archive.file), part.offsets, part.sizes], axis=1).astype(np.int64))
        faults += part.faults
        others += part.others
    if not number_of:
        raise UserError(faults[0] if faults else f"no photos in the archives of {folder}: {others:,} other members")
    classes = sorted(number_of)
    rank = np.empty(len(classes), np.int32)
    rank[[number_of[name] for name in classes]] = np.arange(len(classes))
    ranks = rank[np.concatenate(class_of)]
    by_class = np.argsort(ranks, kind="stable")
    ends_of_classes = np.cumsum(np.bincount(ranks))
    keys, ordered, chosen = packer.keys(), KeyPacker(), []
    for name, rows in zip(classes, np.split(by_class, ends_of_classes[:-1]), strict=True):
        row_of = dict(zip(keys.take(rows), rows.tolist(), strict=True))  # of two alike the later, as tar unpacks them
        if len(row_of) < len(rows):
            faults.append(f"{name}: {len(rows) - len(row_of)} photos are there twice; of each the last is taken")
        names = sorted(row_of)
        ordered.add(name, names)
        chosen.append(np.array([row_of[text] for text in names], np.int64))
    text, ends = ordered.names()
    for file, array in (("places", np.concatenate(places)[np.concatenate(chosen)]), ("names", text), ("ends", ends)):
        with atomic_path(folder / f"{file}.npy") as temporary, open(temporary, "wb") as stream:
            np.save(stream, array)
            stream.flush()
            os.fsync(stream.fileno())
    counts: Mapping[str, int] = {name: len(rows) for name, rows in zip(classes, chosen, strict=True)}
    index = {
        "version": VERSION,
        "files": stamps,
        "photos": counts,
        "text_bytes": len(text),
        "faults": faults[:LISTED],
        "fault_count": len(faults),
        "others": others,
    }
    write_sealed_json(folder / INDEX, index, durable=True)
