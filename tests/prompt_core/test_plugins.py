"""Parts from outside the toolkit."""

from __future__ import annotations

from pathlib import Path

import pytest

from prompt_core.errors import UserError
from prompt_core.plugins import is_outside, load_object


@pytest.mark.parametrize(
    ("text", "outside"),
    [("mine:Method", True), ("my.package:Method", True), ("coop", False), ("folder:/photos", False), ("a:b/c", False)],
)
def test_what_names_a_module(text: str, outside: bool) -> None:
    assert is_outside(text) is outside


def test_objects_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_part.py").write_text("class Part:\n    size = 3\n")
    (tmp_path / "broken_part.py").write_text("raise RuntimeError('not\\ntoday')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_object("outside_part:Part", "METHOD.NAME").size == 3
    with pytest.raises(UserError, match=r"METHOD.NAME is 'outside_part:Pert'; .* has no 'Pert'; nearest: 'Part'"):
        load_object("outside_part:Pert", "METHOD.NAME")
    with pytest.raises(UserError, match=r"importing broken_part failed \(RuntimeError: not today\)"):
        load_object("broken_part:Part", "METHOD.NAME")
    with pytest.raises(UserError, match="put its folder on PYTHONPATH"):
        load_object("no_such_module_here:Part", "METHOD.NAME")
