"""Files: whole or absent, and errors in one line."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core.errors import UserError
from prompt_core.files import (
    atomic_path,
    check_writable,
    make_output_folder,
    plain_value,
    read_json,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_text,
)


def test_atomic_path_replaces_on_success(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "out.bin"
    for content in (b"one", b"two"):
        with atomic_path(target) as temporary:
            assert temporary.parent == target.parent, "a rename between file systems is not atomic"
            assert temporary.suffix == ".bin"
            temporary.write_bytes(content)
            assert target.exists() == (content == b"two")
        assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["out.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_path_keeps_the_old_file_on_any_error(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_on_an_error_before_any_file(tmp_path: Path) -> None:
    def remove_and_fail() -> None:
        with atomic_path(tmp_path / "out.txt") as temporary:
            temporary.unlink()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        remove_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file" / "out.txt", tmp_path / "file" / "deeper" / "out.txt"):
        with pytest.raises(UserError, match=r"cannot write .*out\.txt: .*; choose a writable output path"):
            write_text(target, "y")
        with pytest.raises(UserError, match=r"cannot write to .*; choose a writable --output"):
            make_output_folder(target.parent)
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="it is a folder, a file path was expected"), atomic_path(tmp_path / "out"):
        pytest.fail("the work must not start")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_no_device_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    for name in ("pipe", "device"):
        for refuse in (check_writable, lambda path: write_text(path, "x")):
            with pytest.raises(UserError, match=f"{name}: it is a pipe or a device, a file path was expected"):
                refuse(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "device").readlink() == Path("/dev/null")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "out.txt", "x")
    finally:
        assert os.umask(before) == umask
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == 0o666 & ~umask


def test_output_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = make_output_folder(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b"
    assert list(folder.iterdir()) == []
    assert make_output_folder(folder) == folder


text = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(value=values)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"\n")
    assert sha256_of_json(value) == sha256_of_json(json.loads(json.dumps(value)))


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf["caf\xc3\xa9"]')
    assert read_json(tmp_path / "a.json") == ["café"]


@pytest.mark.parametrize("content", [b'{"a": [1, 2', b"", b"\xff\xfe\x00"])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON .* it may be truncated"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"cannot read .*b\.json: No such file"):
        read_json(tmp_path / "b.json")


def test_an_unwritable_value_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert read_json(tmp_path / "a.json") == 1


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert sha256_of_json({"b": 1, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()
    assert sha256_of_json([1, 2]) != sha256_of_json([2, 1])


def test_plain_values() -> None:
    given_values = {"a": np.float32(0.5), "b": torch.tensor(3), "c": Path("x") / "y", "d": np.int64(7)}
    assert json.loads(json.dumps(given_values, default=plain_value)) == {"a": 0.5, "b": 3, "c": "x/y", "d": 7}
