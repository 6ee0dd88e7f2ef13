"""MATLAB files: what scipy reads of them is read, and damage, which ends scipy's process, is one line."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core.documents.mat_files import read_variable
from prompt_core.errors import UserError

from ...support import hostile

scipy_io = pytest.importorskip("scipy.io")

names = st.text("abcdefgh", min_size=1, max_size=5)
texts = st.text("aé z9", min_size=1, max_size=6)
numbers = st.one_of(
    st.lists(st.integers(0, 300), min_size=1, max_size=4).map(np.array),
    st.integers(-5, 70_000).map(np.int32),
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=3).map(np.array),
    st.just(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    st.just(np.empty(0)),
)
leaves = st.one_of(numbers, texts)
cells = st.lists(leaves, min_size=2, max_size=3).map(lambda items: _cells(items))
structures = st.dictionaries(names, st.one_of(leaves, cells), min_size=1, max_size=3)


def _cells(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def saved(document: dict[str, Any], compressed: bool = False) -> bytes:
    stream = io.BytesIO()
    scipy_io.savemat(stream, document, do_compression=compressed, oned_as="row")
    return stream.getvalue()


def same(ours: Any, theirs: Any) -> None:
    """Equal, down to the fields of structures and the items of cells."""
    fields = getattr(theirs.dtype, "names", None) if isinstance(theirs, np.ndarray | np.void) else None
    if fields:
        assert ours.dtype.names == fields
        for field in fields:
            same(ours[field], theirs[field])
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        assert ours.shape == theirs.shape
        for mine, other in zip(ours.reshape(-1), theirs.reshape(-1), strict=True):
            same(mine, other)
    else:
        assert np.asarray(ours).shape == np.asarray(theirs).shape
        assert np.array_equal(ours, theirs)


@given(value=st.one_of(leaves, cells, structures), compressed=st.booleans())
@settings(max_examples=150, deadline=None)
def test_as_scipy_reads_it(value: Any, compressed: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mat"
    path.write_bytes(saved({"other": np.arange(3), "wanted": value}, compressed))
    same(read_variable(path, "wanted"), scipy_io.loadmat(path, squeeze_me=True)["wanted"])


def test_structures_in_a_row(tmp_path: Path) -> None:
    records = np.zeros(3, dtype=[("class", object), ("fname", object)])
    for number in range(3):
        records[number] = (number + 1, f"{number}.jpg")
    (tmp_path / "a.mat").write_bytes(saved({"annotations": records}))
    found = read_variable(tmp_path / "a.mat", "annotations")
    assert [(int(record["class"]), record["fname"]) for record in found] == [(1, "0.jpg"), (2, "1.jpg"), (3, "2.jpg")]


WHOLE = {
    "labels": np.arange(40),
    "names": _cells(["cat", "hot dog"]),
    "annotations": {"a": 1.5, "b": "text", "c": _cells([1, "x"])},
}


@given(content=hostile.damaged(saved(WHOLE)) | hostile.damaged(saved(WHOLE, True)), name=st.sampled_from([*WHOLE]))
@settings(max_examples=200, deadline=None)
def test_damage_is_one_line(content: bytes, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.mat"
    path.write_bytes(content)
    hostile.success_or_one_line(lambda: read_variable(path, name))


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def array(kind: int, shape: tuple[int, ...], data: bytes) -> bytes:
    flags, sizes = element(6, struct.pack("<II", kind, 0)), element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, flags + sizes + element(1, b"a") + data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "it is not in the format of MATLAB 5"),
        (lambda: array(6, (2**31 - 1, 2**31 - 1), element(9, bytes(8))), "fit its shape"),
        (lambda: array(1, (2**31 - 1, 2**31 - 1), b""), "it ends within its cells"),
        (lambda: array(2, (2**31 - 1, 1), element(5, struct.pack("<i", 2)) + element(1, b"a\0")), "its structures"),
        (lambda: array(2, (1, 1), element(5, struct.pack("<i", 0)) + element(1, b"")), "have no length"),
        (lambda: array(17, (1, 1), b""), "array of kind 17"),
        (lambda: array(4, (1, 9), element(2, b"abc")), "3 characters, 9 fit"),
        (lambda: array(6, (-1, 1), b""), "no flags, name or shape"),
        (lambda: nested(), "nested too deeply"),
    ],
)
def test_files_that_claim_much(tmp_path: Path, content: Callable[[], bytes], message: str) -> None:
    header = b" " * 124 + struct.pack("<H", 0x0100) + (b"IM" if content() else b"xx")
    (tmp_path / "a.mat").write_bytes(header + content())
    with pytest.raises(UserError, match=message):
        read_variable(tmp_path / "a.mat", "a")


def nested() -> bytes:
    inner = array(6, (1, 1), element(9, bytes(8)))
    for _ in range(30):
        inner = array(1, (1, 1), inner)
    return inner
