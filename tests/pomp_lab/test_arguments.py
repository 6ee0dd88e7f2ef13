"""Lists on the command line: each name once and known, whole numbers."""

from __future__ import annotations

import pytest

from pomp_lab.arguments import chosen, whole_numbers
from prompt_core.errors import UserError
from prompt_core.ranges import COUNT_OR_ALL


def test_names_are_known_ones() -> None:
    known = ["POMP", "POMP, tuned", "CoOp"]
    assert chosen(None, known, "row") == known
    assert chosen("CoOp; POMP, tuned;CoOp", known, "row") == ["CoOp", "POMP, tuned"]
    assert chosen("b,a", {"a": 1, "b": 2}, "part", ",") == ["b", "a"]
    with pytest.raises(UserError, match=r"unknown row 'POMPP'; nearest: 'POMP'.*; expected some of: POMP; POMP, tuned"):
        chosen("POMPP", known, "row")


def test_numbers() -> None:
    assert whole_numbers("--seeds", "3,1,3") == [3, 1]
    assert whole_numbers("--shots", "16,-1", COUNT_OR_ALL) == [16, -1]
    for text in ("1;2", "", "1,-1", "4294967296"):
        with pytest.raises(
            UserError, match=rf"--seeds is '{text}'; expected whole numbers \(0 to 4294967295\) separated"
        ):
            whole_numbers("--seeds", text)
