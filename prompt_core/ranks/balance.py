"""Who does what: images in equal runs, classes by the tokens of their names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def runs(count: int, size: int, unit: int = 1) -> list[range]:
    """``count`` things cut into ``size`` runs, whole units each but for the last one, as equal as that allows.

    Args:
        unit: things that stay together.
    """
    units = -(-count // unit)
    starts = [min(count, (units * rank // size) * unit) for rank in range(size + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(starts)]


def balanced_shares(
    costs: Sequence[int] | np.ndarray, size: int, groups: Sequence[int] | np.ndarray | None = None
) -> list[np.ndarray]:
    """Places 0..n - 1 dealt to ``size`` ranks so that the sums of their costs differ by the largest cost at most.

    The most costly come first and are dealt to and fro, as teams are chosen.

    Args:
        costs: (n,).
        groups: (n,) number of each one's group: what is done once for a group, whose cost is that of its first member,
            stays on one rank.

    Returns:
        for each rank its places, ascending.
    """
    costs = np.asarray(costs)
    if groups is None:
        first = member = np.arange(len(costs))
    else:
        _, first, member = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    order = np.argsort(-costs[first], kind="stable")
    turn = np.arange(len(order)) % (2 * size)
    dealt = np.empty(len(order), dtype=np.int64)
    dealt[order] = np.minimum(turn, 2 * size - 1 - turn)
    owner = dealt[member]
    return [np.flatnonzero(owner == rank) for rank in range(size)]
