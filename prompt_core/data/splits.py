"""Parts of a data set: drawn train, val and test, few shots, base and novel classes; functions of keys and a seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError, nearest

SPLITS = ("train", "val", "test")
# key of the photo below its folder, label, class name: a row of CoOp's split files
Row = tuple[str, int, str]


class NoSuchSplit(UserError):
    """A split that the data set, or this division of it, lacks by design; nothing is missing or damaged."""


def check_split(split: str, known: Sequence[str], title: str) -> None:
    """Whether a data set has a split.

    Raises:
        NoSuchSplit: when ``split`` is a split, but not of this data set.
        UserError: when it is not a split at all.
    """
    if split in known:
        return
    only = " (photos for testing only)" if "train" not in known else ""
    expected = ", ".join(known[:-1]) + f" or {known[-1]}"
    kind = NoSuchSplit if split in SPLITS else UserError
    raise kind(f"{title} has no split {split!r}{only}: expected {expected}{nearest(split, known)}")


def part_sizes(count: int, fractions: Sequence[float]) -> list[int]:
    """How many of ``count`` photos each part gets: rounded shares, the rest for the last part, and no part empty.

    Raises:
        UserError: when there are fewer photos than parts.
    """
    if count < len(fractions):
        raise UserError(f"{count} photos cannot be split into {len(fractions)} parts; at least one each is needed")
    sizes = [round(count * fraction) for fraction in fractions[:-1]]
    sizes.append(count - sum(sizes))
    while min(sizes) < 1:  # classes with only a few photos
        sizes[sizes.index(max(sizes))] -= 1
        sizes[sizes.index(min(sizes))] += 1
    return sizes


def draw_parts(rows: Sequence[Row], fractions: Sequence[float], seed: int) -> list[list[Row]]:
    """Split the photos of each class by ``fractions``; each part is sorted by (label, key).

    Photos are taken in the order of sha256(seed, class name, key), so that the draw depends neither on the order of
    ``rows`` nor on other classes or library versions.

    Raises:
        UserError: when a class has fewer photos than there are parts.
    """
    by_label: dict[int, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row[1], []).append(row)
    parts: list[list[Row]] = [[] for _ in fractions]
    for label in sorted(by_label):
        name = by_label[label][0][2]
        prefix = json.dumps(["split", int(seed), name]).encode()
        ranked = sorted(by_label[label], key=lambda row, prefix=prefix: (hash_rank(prefix, row[0]), row[0]))  # type: ignore[misc]
        try:
            sizes = part_sizes(len(ranked), fractions)
        except UserError as error:
            raise UserError(f"class {name!r}: {error}; is the download complete?") from error
        start = 0
        for part, size in zip(parts, sizes, strict=True):
            part.extend(sorted(ranked[start : start + size]))
            start += size
    return parts


VALIDATION_SHOTS = 4  # photos of each class that CoOp chooses settings on, at most


def few_shot(images: ImageSet, shots: int, seed: int) -> ImageSet:
    """At most ``shots`` photos of each class; a class with fewer keeps all; ``shots=-1`` keeps everything.

    Each photo gets the rank of sha256(seed, class id, key) within its class, and the first ``shots`` are taken. So
    the choice in one class depends on nothing but its own keys and the seed, and the subsets are nested: 16 shots
    are part of 100 shots of the same seed. The result is sorted by (label, key).

    Raises:
        UserError: when ``shots`` is neither -1 nor positive.
    """
    if shots != -1 and shots < 1:
        raise UserError(f"shots = {shots}: expected a positive number of images per class, or -1 for all of them")
    order = np.argsort(images.labels, kind="stable")
    starts = np.searchsorted(images.labels, np.arange(len(images.ids) + 1), sorter=order)
    chosen = [np.empty(0, dtype=np.int64)]
    for label, class_id in enumerate(images.ids):
        indices = order[starts[label] : starts[label + 1]].tolist()
        keys = {index: images.keys[index] for index in indices}
        if shots != -1 and len(indices) > shots:
            prefix = json.dumps([int(seed), class_id]).encode()
            indices = sorted(indices, key=lambda index: (hash_rank(prefix, keys[index]), keys[index]))[:shots]
        chosen.append(np.array(sorted(indices, key=keys.__getitem__), dtype=np.int64))
    return images.subset(np.concatenate(chosen))


def hash_rank(prefix: bytes, key: str) -> bytes:
    """Sort key for random draws: sha256 of ``prefix``, which identifies the draw, and the photo's key."""
    return hashlib.sha256(prefix + b"\0" + key.encode("utf-8", "surrogateescape")).digest()


# Values of DATA.CLASSES; ``new`` is CoOp's word for ``novel``.
HALVES = ("all", "base", "new", "novel")


def base_half(images: ImageSet) -> ImageSet:
    """Photos of the first ceil(n/2) of n classes."""
    return images.select_classes(range((len(images.names) + 1) // 2))


def novel_half(images: ImageSet) -> ImageSet:
    """Photos of the other floor(n/2) classes, relabelled from 0."""
    return images.select_classes(range((len(images.names) + 1) // 2, len(images.names)))


def half_of(images: ImageSet, which: str) -> ImageSet:
    """All photos, or those of one half of the classes (``DATASET.SUBSAMPLE_CLASSES`` of CoOp).

    Args:
        which: one of :data:`HALVES`.

    Raises:
        UserError: for any other word.
    """
    if which not in HALVES:
        raise UserError(f"classes {which!r}: expected {', '.join(HALVES)}{nearest(which, HALVES)}")
    return images if which == "all" else base_half(images) if which == "base" else novel_half(images)
