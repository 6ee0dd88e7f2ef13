"""Crops of annotated boxes for ``mini``: those it is measured on, as a person cuts them, and those it learns from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pomp_lab.mini_detector.seen_names import OTHER_NAMES
from prompt_core.data.images import ImageSet
from prompt_core.data.readers.coco_crops import Crops, read_crops
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json

SMALLEST = 6.0  # pixels; of what is smaller, a crop to learn from shows nothing
LARGE = 32.0  # pixels of the shorter side; what is smaller has a column of its own
# Of crops to learn from: margins about the box, how far the box moves (both in its width and height), and the shares of
# those that show a square of the photo and that are squeezed to a square, as detectors show regions to a CLIP.
MARGINS, SHIFT, SQUARE, SQUEEZED = (-0.05, 0.35), 0.1, 1 / 3, 1 / 3
COCO_NAMES = {other: name for name, others in OTHER_NAMES.items() for other in others}


@dataclasses.dataclass(frozen=True, eq=False)
class SqueezedCrops(Crops):
    """Crops of which some are resized to a square, whatever their shape.

    Attributes:
        squeezed: (n,) which.
    """

    squeezed: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, dtype=bool))

    def read(self, index: int) -> Image.Image:
        """Crop ``index``. Raises UnreadableImage when the photo cannot be read."""
        crop = super().read(index)
        side = max(crop.size)
        return crop.resize((side, side), Image.Resampling.BICUBIC) if self.squeezed[index] else crop

    def subset(self, indices: Sequence[int] | np.ndarray) -> SqueezedCrops:
        """The crops at ``indices``, in that order; the classes stay."""
        whole: Any = super().subset(indices)
        return dataclasses.replace(whole, squeezed=self.squeezed[np.asarray(indices, dtype=np.int64)])

    def fingerprint(self) -> str:
        """That of the crops, with which are squeezed."""
        return sha256_of_json([super().fingerprint(), self.squeezed.tolist()])


def jittered(crops: Crops, views: int, seed: int) -> SqueezedCrops:
    """``views`` crops of each box, one after the other: moved, with margins, some square, some squeezed."""
    rng = np.random.default_rng(seed)
    many = crops.subset(np.repeat(np.arange(len(crops)), views))
    count, boxes = len(many), many.boxes.copy()
    boxes[:, :2] += rng.uniform(-SHIFT, SHIFT, (count, 2)) * boxes[:, 2:]
    more = rng.uniform(*MARGINS, (count, 1)) * boxes[:, 2:]
    boxes = np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + 2 * more], axis=1)
    kind = rng.uniform(size=count)
    square = kind < SQUARE
    side = boxes[square, 2:].max(axis=1, keepdims=True)
    boxes[square, :2] -= (side - boxes[square, 2:]) / 2
    boxes[square, 2:] = side
    common = {field.name: getattr(many, field.name) for field in dataclasses.fields(Crops)}
    return SqueezedCrops(**{**common, "boxes": boxes}, squeezed=kind > 1 - SQUEEZED)


def whole_photos(crops: Crops) -> ImageSet:
    """The photos of the crops, each once, all of one class."""
    keys = sorted(set(crops.photos().keys))
    return ImageSet(["photo"], ["photo"], np.zeros(len(keys), dtype=np.int64), keys, crops.source, crops.root)


def in_plain_words(crops: Crops, classes: Sequence[str] | None = None) -> Crops:
    """The same crops with class names that are other words for one of COCO's 80 (VOC's aeroplane) replaced by it.

    Args:
        classes: the classes to count by; None for those of the crops.

    Raises:
        UserError: a class of the crops that is not in ``classes``.
    """
    known = set(OTHER_NAMES) if classes is None else set(classes)
    plain = [name if name in known else COCO_NAMES.get(name, name) for name in crops.names]
    order = list(dict.fromkeys(plain)) if classes is None else list(classes)
    if missing := [name for name in plain if name not in order]:
        raise UserError(f"{crops.source}: class {missing[0]!r} is not one of the {len(order)} of the first file")
    rows = np.array([order.index(name) for name in plain])
    return dataclasses.replace(crops, names=order, ids=order, labels=rows[crops.labels])


def training_regions(files: Sequence[Sequence[Path]]) -> list[Crops]:
    """Boxes without margin, large enough to learn from, of pairs of an annotation file and the folder of its photos.

    The first file says the classes.

    Raises:
        UserError: what :func:`read_crops` says of a file; a class that the first file does not have.
    """
    read: list[Crops] = []
    for path, root in files:
        crops = read_crops(root, path, margin=0.0, smallest=SMALLEST)
        read.append(in_plain_words(crops, read[0].names if read else None))
    return read


def scored_regions(annotations: Path, root: Path) -> dict[str, Crops]:
    """Boxes with the margin that people leave, in plain words: ``regions`` and, of a side below :data:`LARGE` pixels,
    ``small regions``, where there are any.

    Raises:
        UserError: what :func:`read_crops` says of the file, or no box is large enough.
    """
    large, every = (in_plain_words(read_crops(root, annotations, smallest=side)) for side in (LARGE, 0.0))
    known = set(large.keys)
    small = every.subset([row for row, key in enumerate(every.keys) if key not in known])
    return {"regions": large, "small regions": small} if len(small) else {"regions": large}
