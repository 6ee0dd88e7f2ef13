"""Several image sets as one: photos and crops, or photos of two folders, over one list of classes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json
from prompt_core.vocabulary import plain_name

JOIN = " + "  # between the parts of a source


@dataclasses.dataclass(frozen=True, eq=False)
class JoinedImages(ImageSet):
    """Images of several sets; each is read by the set that it is from.

    Attributes:
        parts: the sets.
        places: (n, 2) int64, the part of each image and its index there.
    """

    parts: tuple[ImageSet, ...] = ()
    places: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))

    def read(self, index: int) -> Image.Image:
        """Decode image ``index``.

        Raises:
            UnreadableImage: when it cannot be read.
        """
        part, inner = self.places[index].tolist()
        return self.parts[part].read(inner)

    def subset(self, indices: Sequence[int] | np.ndarray) -> JoinedImages:
        """The images at ``indices``, in that order; the classes stay."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        whole = super().subset(chosen)
        assert isinstance(whole, JoinedImages)
        return dataclasses.replace(whole, places=self.places[chosen])

    def file_sizes(self) -> np.ndarray:
        """(n,) int64 sizes in bytes of the encoded photos; -1 for a missing file."""
        sizes = np.zeros(len(self), dtype=np.int64)
        for number, part in enumerate(self.parts):
            mine = self.places[:, 0] == number
            if mine.any():
                sizes[mine] = part.subset(self.places[mine, 1]).file_sizes()
        return sizes

    def fingerprint(self) -> str:
        """That of the images, and that of each part's images here, which know what is cut out of a photo."""
        used = [part.subset(self.places[self.places[:, 0] == number, 1]) for number, part in enumerate(self.parts)]
        return sha256_of_json([super().fingerprint(), [part.fingerprint() for part in used]])


def join_images(parts: Sequence[ImageSet]) -> ImageSet:
    """One set of all images.

    A class is the same as one of an earlier part that has its id, or else its name; classes of one part stay apart.
    Keys become relative to the folder that all parts lie in.

    Raises:
        UserError: no part, or an image that is in two of them.
    """
    if not parts:
        raise UserError("no image sets were given; expected at least one")
    if len(parts) == 1:
        return parts[0]
    root = Path(os.path.commonpath([os.path.abspath(part.root) for part in parts]))  # noqa: PTH100 (keeps links)
    names, ids = list(parts[0].names), list(parts[0].ids)
    labels, keys, places = [], [], []
    for number, part in enumerate(parts):
        rows = _rows(names, ids, part) if number else np.arange(len(names))
        labels.append(rows[part.labels])
        above = Path(os.path.relpath(os.path.abspath(part.root), root)).as_posix()  # noqa: PTH100
        keys += list(part.keys) if above == "." else [f"{above}/{key}" for key in part.keys]
        places.append(np.stack([np.full(len(part), number), np.arange(len(part))], axis=1))
    if len(set(keys)) != len(keys):
        twice = next(key for number, key in enumerate(keys) if key in set(keys[:number]))
        raise UserError(f"image {twice} is in two of the sets that are joined; give each of them once")
    source = JOIN.join(part.source for part in parts)
    return JoinedImages(
        names, ids, np.concatenate(labels), keys, source, root, parts=tuple(parts), places=np.concatenate(places)
    )


def _rows(names: list[str], ids: list[str], part: ImageSet) -> np.ndarray:
    """The row of each class of ``part``; new ones are appended to ``names`` and ``ids``."""
    by_id = {identity: row for row, identity in enumerate(ids)}
    by_name: dict[str, int] = {}
    for row, name in enumerate(names):
        by_name.setdefault(plain_name(name), row)
    rows, taken = np.empty(len(part.names), dtype=np.int64), set()
    for label, (name, identity) in enumerate(zip(part.names, part.ids, strict=True)):
        known = by_id.get(identity, by_name.get(plain_name(name)))
        if known is None or known in taken:
            known = len(names)
            names.append(name)
            ids.append(identity)
        taken.add(known)
        rows[label] = known
    return rows
