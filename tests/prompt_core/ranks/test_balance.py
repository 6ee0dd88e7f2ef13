"""Who does what: nothing is left out or done twice, groups stay together, and loads are even."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prompt_core.ranks.balance import balanced_shares, runs


@given(count=st.integers(0, 60), size=st.integers(1, 9), unit=st.integers(1, 7))
def test_runs_hold_everything_once_in_whole_units(count: int, size: int, unit: int) -> None:
    parts = runs(count, size, unit)
    assert [place for part in parts for place in part] == list(range(count))
    assert len(parts) == size
    assert all(part.start % unit == 0 for part in parts if part)
    units = [-(-len(part) // unit) for part in parts]
    assert max(units) - min(units) <= 1


@given(
    things=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40)), max_size=60),
    size=st.integers(1, 8),
    grouped=st.booleans(),
)
def test_shares_are_whole_groups_of_even_cost(things: list[tuple[int, int]], size: int, grouped: bool) -> None:
    groups = [group for _, group in things]
    of_group = {group: cost for cost, group in reversed(things)}  # of the first member
    costs = [of_group[group] if grouped else cost for cost, group in things]
    shares = balanced_shares(costs, size, groups if grouped else None)
    assert sorted(place for share in shares for place in share.tolist()) == list(range(len(things)))
    assert all(share.tolist() == sorted(share.tolist()) for share in shares)
    if grouped:
        owners: dict[int, set[int]] = {}
        for rank, share in enumerate(shares):
            for place in share:
                owners.setdefault(groups[place], set()).add(rank)
        assert all(len(ranks) == 1 for ranks in owners.values())
        loads = [sum(of_group[group] for group in {groups[place] for place in share}) for share in shares]
    else:
        loads = [int(np.asarray(costs, dtype=int)[share].sum()) for share in shares]
    assert max(loads) - min(loads) <= max(costs, default=0)
