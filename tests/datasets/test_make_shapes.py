"""``datasets/make_shapes.py`` as users run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_command_does_nothing_twice_and_refuses_a_conflict(run: Run, tmp_path: Path) -> None:
    few = ["--classification-classes", "4", "--train-images-per-class", "1", "--val-images-per-class", "1"]
    arguments = ["--output", tmp_path / "set", *few, "--parts", "classification"]
    code, output, errors = run("make_shapes", *arguments)
    assert code == 0, errors
    assert f"made shapes in {tmp_path}/set" in output
    before = content(tmp_path / "set")
    assert not (tmp_path / "set" / "scenes").exists()
    assert "nothing to do" in run("make_shapes", *arguments)[1]
    code, _, errors = run("make_shapes", *arguments, "--seed", "7")
    assert code == 2
    assert "seed: 0, now 7" in errors
    assert "choose another folder or give --overwrite" in errors
    assert content(tmp_path / "set") == before
    assert run("make_shapes", *arguments, "--seed", "7", "--overwrite")[0] == 0
    assert json.loads((tmp_path / "set" / "shapes.json").read_text())["options"]["seed"] == 7
    assert content(tmp_path / "set") != before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_overwrite_never_deletes_what_the_tool_did_not_make(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "holds no shapes.json" in run("make_shapes", "--output", tmp_path, "--overwrite")[2]
    (tmp_path / "shapes.json").write_text('{"mine": true}')
    assert "not written by this tool" in run("make_shapes", "--output", tmp_path, "--overwrite")[2]
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "blured"], "nearest: 'blurred'"),
        (["--parts", "scene"], "nearest: 'scenes'"),
        (["--parts", ""], "expected classification, scenes"),
        (["--masks", "bitmap"], "expected polygons, rle"),
        (["--classes", "100000"], "expected a number from 2 to 1440"),
        (["--classes", "20", "--classification-classes", "30"], "expected a number from 2 to 20"),
        (["--scenes", "0"], "--scenes is 0"),
        (["--seed", "-1"], "argument --seed: a whole number, 0 to"),
        (["--seeds", "1"], "unrecognized arguments: --seeds 1"),
    ],
)
def test_bad_options_are_refused_in_one_line(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, _, errors = run("make_shapes", "--output", tmp_path / "set", *arguments)
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
