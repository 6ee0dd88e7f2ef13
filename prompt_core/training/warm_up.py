"""A warning for runs that end within their warm-up, which is easily asked for by shortening a published run."""

from __future__ import annotations


def warm_up_alone(length: tuple[str, int], warm_up: tuple[str, int], rate: tuple[str, float]) -> str:
    """One line about a run whose warm-up is as long as the run itself, empty for any other.

    Such a run stays as it was asked for: a shorter warm-up would be a schedule that nobody named.

    Args:
        length: key and value of the length of the run.
        warm_up: key and value of the length of its warm-up, in the same unit.
        rate: key and value of the learning rate that the warm-up leads to.
    """
    if length[1] > warm_up[1]:
        return ""
    return (
        f"{length[0]} is {length[1]} and {warm_up[0]} {warm_up[1]}: the whole run is warm-up and never learns at "
        f"{rate[0]} {rate[1]:g}; set {warm_up[0]} below {length[1]}"
    )
