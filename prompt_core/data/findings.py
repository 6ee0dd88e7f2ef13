"""What a check of a data set found: one row for each file or folder, with its exact path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PRESENT, MISSING, WRONG, BROKEN = "present", "missing", "wrong", "broken"


@dataclass(frozen=True)
class Finding:
    """State of one file or folder of a data set.

    Attributes:
        dataset: the data set's name.
        path: where it is, or has to be.
        state: present, missing, wrong (it opens, but differs from what it should be) or broken (it cannot be opened).
        detail: what was counted, or what is wrong.
        advice: how to get it; empty when it is present.
    """

    dataset: str
    path: Path
    state: str
    detail: str = ""
    advice: str = ""
