"""The one interface of every classification image source: names, labels, stable keys, and photos read on demand."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from prompt_core.data.open_photo import PHOTO_BYTES, UnreadableImage, open_photo
from prompt_core.data.photo_keys import PhotoKeys
from prompt_core.documents.bounds import read_bytes
from prompt_core.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled photos of one split. Immutable; nothing is decoded before :meth:`read`.

    Attributes:
        names: class names, position = label; they need not be unique ("crane" is a bird and a machine).
        ids: class identifiers (wnids, folder names), position = label; unique.
        labels: (n,) int64.
        keys: n stable identifiers: POSIX paths relative to ``root``, so that they survive a move of the data. Photos in
            archives may have those that they would have in folders.
        source: where the photos and names come from, for logs and reports.
        root: the folder that ``keys`` are relative to.
        shards: paths of tar shards relative to ``root``; empty for photos that are plain files.
        members: (n, 3) int64 rows (shard number, offset in bytes, size in bytes), with ``shards`` only.
    """

    names: list[str]
    ids: list[str]
    labels: np.ndarray
    keys: Sequence[str]
    source: str
    root: Path
    shards: tuple[str, ...] = ()
    members: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        labels = np.array(self.labels, dtype=np.int64).reshape(-1)
        labels.flags.writeable = False
        object.__setattr__(self, "labels", labels)
        if len(labels) != len(self.keys):
            raise UserError(f"{self.source}: {len(labels)} labels for {len(self.keys)} images, expected one per image")
        if len(self.names) != len(self.ids):
            raise UserError(f"{self.source}: {len(self.names)} class names for {len(self.ids)} class ids")
        if len(set(self.ids)) != len(self.ids):
            raise UserError(f"{self.source}: class ids repeat: {_first_repeated(self.ids)!r}; each may occur once")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.names):
            raise UserError(f"{self.source}: labels {labels.min()}..{labels.max()} for {len(self.names)} classes")
        if self.shards and (self.members is None or self.members.shape != (len(labels), 3)):
            raise UserError(f"{self.source}: images in shards need one (shard, offset, size) row each")

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> Image.Image:
        """Decode photo ``index`` as RGB, upright (:func:`prompt_core.data.open_photo.open_photo`).

        Raises:
            UnreadableImage: when the file is missing, truncated or not an image.
        """
        key = self.keys[index]
        if self.members is None:
            return open_photo(self.root / key, key)
        return open_photo(self._read_member(index), key)

    def read_bytes(self, index: int) -> bytes:
        """The encoded photo ``index``, as it is stored.

        Raises:
            UserError: when it cannot be read.
        """
        if self.members is None:
            return read_bytes(self.root / self.keys[index], PHOTO_BYTES)
        return self._read_member(index)

    def subset(self, indices: Sequence[int] | np.ndarray) -> ImageSet:
        """The photos at ``indices``, in that order; the classes stay."""
        chosen, keys = np.asarray(indices, dtype=np.int64).reshape(-1), self.keys
        return dataclasses.replace(
            self,
            labels=self.labels[chosen],
            keys=keys.take(chosen) if isinstance(keys, PhotoKeys) else [keys[index] for index in chosen.tolist()],
            members=None if self.members is None else self.members[chosen],
        )

    def select_classes(self, class_indices: Iterable[int]) -> ImageSet:
        """The photos of the given classes only, relabelled from 0 in the given order.

        Raises:
            UserError: when a class index is out of range or given twice.
        """
        classes = [int(index) for index in class_indices]
        for index in classes:
            if not 0 <= index < len(self.names):
                raise UserError(f"{self.source}: class index {index} of {len(self.names)} classes")
        if len(set(classes)) != len(classes):
            raise UserError(f"{self.source}: class index {_first_repeated(classes)} given twice")
        new_label = np.full(len(self.names), -1, dtype=np.int64)
        new_label[classes] = np.arange(len(classes))
        selected = self.subset(np.flatnonzero(new_label[self.labels] >= 0))
        return dataclasses.replace(
            selected,
            names=[self.names[index] for index in classes],
            ids=[self.ids[index] for index in classes],
            labels=new_label[selected.labels],
        )

    def file_sizes(self) -> np.ndarray:
        """(n,) int64 sizes in bytes of the encoded photos; -1 for a missing file."""
        if self.members is not None:
            return np.asarray(self.members[:, 2], dtype=np.int64)
        root = str(self.root)
        return np.fromiter((_file_size(os.path.join(root, key)) for key in self.keys), np.int64, len(self.keys))  # noqa: PTH118

    def fingerprint(self) -> str:
        """sha256 over keys, labels, class names and ids, and file sizes; reads no pixels and ignores ``root``.

        A photo replaced by another of exactly the same size in bytes is not detected.
        """
        digest = hashlib.sha256()
        for texts in (self.keys, self.names, self.ids):
            for text in texts:
                encoded = text.encode("utf-8", "surrogateescape")
                digest.update(len(encoded).to_bytes(4, "little") + encoded)
            digest.update(len(texts).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.file_sizes(), dtype="<i8").tobytes())
        return digest.hexdigest()

    def _read_member(self, index: int) -> bytes:
        assert self.members is not None
        shard, offset, size = (int(value) for value in self.members[index])
        if not 0 <= size <= PHOTO_BYTES:
            raise UnreadableImage(self.keys[index], f"{size:,} bytes, where at most {PHOTO_BYTES:,} are expected")
        try:
            # opened anew each time: a shared position in the file would not survive threads
            with open(self.root / self.shards[shard], "rb") as stream:
                stream.seek(offset)
                return stream.read(size)
        except (OSError, IndexError, ValueError) as error:  # the last two where an index is damaged
            raise UnreadableImage(self.keys[index], getattr(error, "strerror", None) or str(error)) from error


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a Path per photo would take longer than the call
    except OSError:
        return -1


def _first_repeated(values: Iterable[object]) -> object:
    seen: set[object] = set()
    return next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
