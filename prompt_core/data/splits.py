"""Drawing train, val and test where a data set has no list of them: pure functions of the keys and a seed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from prompt_core.data.few_shot import hash_rank
from prompt_core.errors import UserError, nearest

SPLITS = ("train", "val", "test")
# key of the photo below its folder, label, class name: a row of CoOp's split files
Row = tuple[str, int, str]


class NoSuchSplit(UserError):
    """A split that the data set, or this division of it, does not have by design; nothing is missing or damaged."""


def check_split(split: str, known: Sequence[str], title: str) -> None:
    """Whether a data set has a split.

    Raises:
        NoSuchSplit: when ``split`` is a split, but none of this data set.
        UserError: when it is no split at all.
    """
    if split in known:
        return
    only = " (photos to test on alone)" if "train" not in known else ""
    expected = ", ".join(known[:-1]) + f" or {known[-1]}"
    kind = NoSuchSplit if split in SPLITS else UserError
    raise kind(f"{title} has no split {split!r}{only}: expected {expected}{nearest(split, known)}")


def part_sizes(count: int, fractions: Sequence[float]) -> list[int]:
    """How many of ``count`` photos each part gets: rounded shares, the last part the rest, and none of them empty.

    Raises:
        UserError: when there are fewer photos than parts.
    """
    if count < len(fractions):
        raise UserError(f"{count} photos cannot be split into {len(fractions)} parts; one each is needed at least")
    sizes = [round(count * fraction) for fraction in fractions[:-1]]
    sizes.append(count - sum(sizes))
    while min(sizes) < 1:  # classes of a few photos only
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
