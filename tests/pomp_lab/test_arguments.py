"""Lists on the command line: each name once and known, whole numbers."""

from __future__ import annotations

import pytest

from pomp_lab.arguments import chosen, whole_numbers
from prompt_core.errors import UserError


def test_names_are_known_ones() -> None:
    known = ["POMP", "POMP, tuned", "CoOp"]
    assert chosen(None, known, "row") == known
    assert chosen("CoOp; POMP, tuned;CoOp", known, "row") == ["CoOp", "POMP, tuned"]
    assert chosen("b,a", {"a": 1, "b": 2}, "part", ",") == ["b", "a"]
    with pytest.raises(UserError, match=r"unknown row 'POMPP'; nearest: 'POMP'.*; expected some of: POMP; POMP, tuned"):
        chosen("POMPP", known, "row")


def test_numbers() -> None:
    assert whole_numbers("--seeds", "3,1,3") == [3, 1]
    with pytest.raises(UserError, match="--seeds is '1;2'; expected whole numbers separated by commas"):
        whole_numbers("--seeds", "1;2")
