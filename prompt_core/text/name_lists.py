"""Lists of class names, as encoders take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prompt_core.errors import UserError

if TYPE_CHECKING:
    from prompt_core.vocabulary import Vocabulary


def class_names(vocabulary: Vocabulary | Sequence[str]) -> list[str]:
    """The names of a vocabulary or of a plain sequence of names."""
    if isinstance(vocabulary, str):
        raise UserError(f"a list of class names was expected, given the single text {vocabulary[:60]!r}")
    names = getattr(vocabulary, "names", vocabulary)
    return list(names)


def keeps_underscores(vocabulary: Vocabulary | Sequence[str]) -> bool:
    """Whether the names of a vocabulary are prompted with their underscores; those of a plain sequence are not."""
    return bool(getattr(vocabulary, "keep_underscores", False))


def unique_names(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """First occurrences (U,) and, for each name, which of them it is (N,)."""
    seen: dict[str, int] = {}
    first: list[int] = []
    inverse: list[int] = []
    for row, name in enumerate(names):
        place = seen.setdefault(name, len(seen))
        if place == len(first):
            first.append(row)
        inverse.append(place)
    return np.array(first, dtype=np.int64), np.array(inverse, dtype=np.int64)
