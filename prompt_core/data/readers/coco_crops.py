"""Annotated boxes of a COCO file as labelled images: each box is a crop of its photo, its category the class."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import inside, require_file, require_folder, require_photos
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import Finite, Int64, check
from prompt_core.errors import UserError, nearest
from prompt_core.files import sha256_of_json

MARGIN = 0.1  # of a box's width and height, on each side: what is around a thing helps to name it


class _Photo(msgspec.Struct, gc=False):
    id: Int64
    file_name: str


class _Category(msgspec.Struct, gc=False):
    id: Int64
    name: str


class _Box(msgspec.Struct, gc=False):
    id: Int64
    image_id: Int64
    category_id: Int64
    bbox: tuple[Finite, Finite, Finite, Finite]
    iscrowd: int | bool = 0
    ignore: int | bool = 0


class _Annotations(msgspec.Struct, gc=False):
    images: list[_Photo]
    categories: list[_Category]
    annotations: list[_Box]


@dataclasses.dataclass(frozen=True, eq=False)
class Crops(ImageSet):
    """Boxes in photos; the key of each is that of its photo, ``#`` and the number of its annotation.

    Attributes:
        boxes: (n, 4) float64, x, y, width and height in pixels of the photo; they may lie partly outside it.
    """

    boxes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4)))

    def read(self, index: int) -> Image.Image:
        """Crop ``index``: the whole pixels of its box, at least one.

        Raises:
            UnreadableImage: when the photo cannot be read.
        """
        photo = self.photos().read(index)
        x, y, width, height = self.boxes[index].tolist()
        (left, right), (top, bottom) = _pixels(x, width, photo.width), _pixels(y, height, photo.height)
        return photo.crop((left, top, right, bottom))

    def subset(self, indices: Sequence[int] | np.ndarray) -> Crops:
        """The crops at ``indices``, in that order; the classes stay."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        whole = super().subset(chosen)
        assert isinstance(whole, Crops)
        return dataclasses.replace(whole, boxes=self.boxes[chosen])

    def file_sizes(self) -> np.ndarray:
        """(n,) int64 sizes in bytes of the encoded photos; -1 for a missing file."""
        return self.photos().file_sizes()

    def fingerprint(self) -> str:
        """That of the photos, with the boxes."""
        return sha256_of_json([super().fingerprint(), self.boxes.tolist()])

    def photos(self) -> ImageSet:
        """The whole photo of each crop, of the same class."""
        keys = [key.rpartition("#")[0] for key in self.keys]
        return ImageSet(self.names, self.ids, self.labels, keys, self.source, self.root)


def coco_crops(text: str, split: str = "train") -> Crops:
    """Crops of ``FOLDER#FILE`` or ``FOLDER#FILE#OPTIONS``.

    Args:
        text: FOLDER is what the file names of FILE are relative to; FILE a COCO document, relative to FOLDER or a path;
            OPTIONS are those of :func:`read_crops`, as ``margin=0.2,smallest=8``.
        split: not used, a document is one split.

    Raises:
        UserError: see :func:`read_crops`; an unknown option.
    """
    folder, *rest = text.split("#")
    if not 1 <= len(rest) <= 2 or not rest[0]:
        raise UserError(f"coco_crops:{text} names no annotations; expected coco_crops:FOLDER#FILE.json")
    root = require_folder(Path(folder), "photos with annotated boxes")
    inner = root / rest[0]
    options = _options(rest[1]) if len(rest) == 2 else {}
    return read_crops(root, inner if inner.is_file() else Path(rest[0]), **options)


def read_crops(root: Path, annotations: Path, margin: float = MARGIN, smallest: float = 0.0) -> Crops:
    """The boxes of a COCO document; crowds, boxes marked ``ignore`` (VOC's difficult ones) and flat ones are left out.

    Classes are the categories, in the order of their ids; class ids are their names.

    Args:
        root: the folder that the file names are relative to.
        margin: what a crop has more on each side, as a share of the box's width and height.
        smallest: boxes with a shorter side, in pixels, are left out.

    Raises:
        UserError: a file that is absent or not of this kind, a missing photo, or no box.
    """
    path = require_file(annotations, "annotated boxes")
    document: _Annotations = check(read_json(path), _Annotations, path)
    files = {photo.id: inside(photo.file_name, str(path)) for photo in document.images}
    named = {category.id: category.name for category in document.categories}
    boxes = [box for box in document.annotations if not (box.iscrowd or box.ignore)]
    boxes = [box for box in boxes if min(box.bbox[2:]) > 0 and min(box.bbox[2:]) >= smallest]
    if not boxes:
        raise UserError(f"{path} has no box to crop, apart from crowds, of {smallest:g} pixels or more")
    for box in boxes:
        if box.image_id not in files or box.category_id not in named:
            what = f"image {box.image_id}" if box.image_id not in files else f"category {box.category_id}"
            raise UserError(f"{path}: annotation {box.id} is of {what}, which the file does not list")
    boxes.sort(key=lambda box: (files[box.image_id], box.id))
    names = [named[category] for category in sorted(named)]
    label = {category: row for row, category in enumerate(sorted(named))}
    require_photos(root, sorted({files[box.image_id] for box in boxes}), path)
    corners = np.array([box.bbox for box in boxes], dtype=np.float64)
    return Crops(
        names,
        names,
        np.array([label[box.category_id] for box in boxes]),
        [f"{files[box.image_id]}#{box.id}" for box in boxes],
        f"coco_crops:{path.name}",
        root,
        boxes=with_margin(corners, margin),
    )


def with_margin(boxes: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """Boxes (n, 4), x, y, width and height, with a share of their width and height more on each side."""
    more = margin * boxes[:, 2:]
    return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + 2 * more], axis=1)


def _options(text: str) -> dict[str, Any]:
    known = ("margin", "smallest")
    chosen = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in known:
            raise UserError(f"coco_crops has no option {key!r}; expected {' or '.join(known)}{nearest(key, known)}")
        try:
            chosen[key] = float(value)
        except ValueError:
            chosen[key] = math.nan
        if not 0 <= chosen[key] < 1e6:
            raise UserError(f"coco_crops: {key} is {value!r}; expected a number of 0 or more")
    return chosen


def _pixels(start: float, extent: float, limit: int) -> tuple[int, int]:
    """First and last whole pixels of an interval, the last excluded; at least one of ``limit``."""
    first = min(max(math.floor(start), 0), limit - 1)
    return first, max(min(math.ceil(start + extent), limit), first + 1)
