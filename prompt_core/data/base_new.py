"""The two halves of a data set's classes, for learning on base classes and scoring on new ones.

The protocol of CoCoOp (arXiv 2203.05557): the first ceil(n/2) labels are base, the others new, each relabelled from 0.
"""

from __future__ import annotations

from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError, nearest

HALVES = ("all", "base", "new")
# What the halves are called in results.
WORDS = {"base": "base", "new": "novel"}


def base_half(images: ImageSet) -> ImageSet:
    """Photos of the first ceil(n/2) of n classes."""
    return images.select_classes(range((len(images.names) + 1) // 2))


def new_half(images: ImageSet) -> ImageSet:
    """Photos of the other floor(n/2) classes, relabelled from 0."""
    return images.select_classes(range((len(images.names) + 1) // 2, len(images.names)))


def half_of(images: ImageSet, which: str) -> ImageSet:
    """``all``, ``base`` or ``new`` (``DATASET.SUBSAMPLE_CLASSES`` of CoOp).

    Raises:
        UserError: for any other word.
    """
    if which not in HALVES:
        raise UserError(f"classes {which!r}: expected all, base or new{nearest(which, HALVES)}")
    return images if which == "all" else base_half(images) if which == "base" else new_half(images)
