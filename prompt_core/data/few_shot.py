"""Few-shot subsets that do not depend on listing order, library versions or earlier random draws."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError

VALIDATION_SHOTS = 4


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
    by_class: list[list[int]] = [[] for _ in images.names]
    for index, label in enumerate(images.labels.tolist()):
        by_class[label].append(index)
    chosen: list[int] = []
    for class_id, indices in zip(images.ids, by_class, strict=True):
        if shots != -1 and len(indices) > shots:
            prefix = json.dumps([int(seed), class_id]).encode()
            ranked = sorted(indices, key=lambda index: (hash_rank(prefix, images.keys[index]), images.keys[index]))
            indices = ranked[:shots]
        chosen.extend(sorted(indices, key=images.keys.__getitem__))
    return images.subset(np.asarray(chosen, dtype=np.int64))


def few_shot_validation(images: ImageSet, shots: int, seed: int) -> ImageSet:
    """The validation photos that go with ``shots`` training photos of each class: at most min(``shots``, 4).

    The rule of CoOp; ``shots=-1`` keeps everything.

    Raises:
        UserError: when ``shots`` is neither -1 nor positive.
    """
    return few_shot(images, min(shots, VALIDATION_SHOTS), seed)


def hash_rank(prefix: bytes, key: str) -> bytes:
    """What photos are sorted by to draw some: sha256 of ``prefix``, which says for what, and of the photo's key."""
    return hashlib.sha256(prefix + b"\0" + key.encode("utf-8", "surrogateescape")).digest()
