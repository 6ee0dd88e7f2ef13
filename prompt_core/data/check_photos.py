"""Checks of the photos of a split: classes without any, files that cannot be read, photos listed twice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prompt_core.data.images import ImageSet, UnreadableImage

# A split of up to this many photos is decoded completely, a larger one at READ places.
DECODE_ALL = 64
READ = 4


def count_photos(images: ImageSet, read: int) -> str:
    """``12 classes, 300 photos, 4 of them read``."""
    how = "all of them read" if read == len(images) else f"{read} of them read"
    return f"{len(images.names):,} classes, {len(images):,} photos, {how}"


def empty_classes(images: ImageSet) -> list[str]:
    """A text when classes have no photos; else an empty list."""
    empty = np.flatnonzero(np.bincount(images.labels, minlength=len(images.names)) == 0).tolist()
    return [f"{len(empty)} classes have no photos, the first is {images.names[empty[0]]!r}"] if empty else []


def read_photos(images: ImageSet) -> tuple[int, list[str]]:
    """How many photos were decoded; and texts on empty files (all are found) and on unreadable photos."""
    texts: list[str] = []
    sizes = images.file_sizes()
    if len(empty := np.flatnonzero(sizes == 0)):
        texts.append(f"{len(empty)} photos are empty files, the first is {images.keys[empty[0]]}")
    failed: list[str] = []
    tried = [index for index in _places(images) if sizes[index] != 0]
    for index in tried:
        try:
            images.read(index)
        except UnreadableImage as error:
            failed.append(error.key)
    if failed:
        texts.append(f"{len(failed)} cannot be read: {failed[0]}")
    return len(tried) - len(failed), texts


def repeated(images: ImageSet, others: Mapping[str, ImageSet]) -> list[str]:
    """Notes on photos that are listed twice, under two labels, or also in another split.

    Args:
        others: the splits before this one, by name.
    """
    notes: list[str] = []
    label_of: dict[str, int] = {}
    twice: list[str] = []
    two_labels: list[str] = []
    for key, label in zip(images.keys, images.labels.tolist(), strict=True):
        if key in label_of:
            (twice if label_of[key] == label else two_labels).append(key)
        label_of.setdefault(key, label)
    if twice:
        notes.append(f"{len(twice)} photos are listed twice, the first is {twice[0]}")
    if two_labels:
        notes.append(f"{len(two_labels)} photos have two labels, the first is {two_labels[0]}")
    for split, other in others.items():
        if other.root == images.root and (common := label_of.keys() & set(other.keys)):
            notes.append(f"{len(common)} photos are in {split} too, the first is {min(common)}")
    return notes


def _places(images: ImageSet) -> list[int]:
    if len(images) <= DECODE_ALL:
        return list(range(len(images)))
    return sorted({int(place) for place in np.linspace(0, len(images) - 1, READ)})
