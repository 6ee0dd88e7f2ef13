"""Headers of .npy files that claim what is not there."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from prompt_core.classifier import TextClassifier
from prompt_core.documents.npy_files import read_npy
from prompt_core.errors import UserError

from ...support import hostile

CLAIM = "{'descr': '<f4', 'fortran_order': False, 'shape': (100000000, 1000), }"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (hostile.claimed_npy(CLAIM, b"\0" * 24), r"claims 400,000,000,000 bytes of numbers, the file has 24"),
        (hostile.claimed_npy(CLAIM.replace("<f4", "|O")), "it holds Python objects"),
        (hostile.claimed_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -6), }", b"\0" * 24), "claims"),
        (hostile.claimed_npy("(" * 5000), "could not be read as a NumPy array"),
        (b"PK\x03\x04", "an archive of several"),
        (b"", "could not be read as a NumPy array"),
    ],
)
def test_claims_are_compared_before_memory_is_taken(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_npy, TextClassifier.load):
        with pytest.raises(UserError, match=message) as caught:
            read(tmp_path / "a.npy")
        assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(order: str, tmp_path: Path) -> None:
    for array in (np.arange(6, dtype=np.float16).reshape(2, 3), np.array(["a", "bc"]), np.zeros((0, 3)), np.array(3)):
        np.save(tmp_path / "a.npy", np.asarray(array, order=order))
        assert np.array_equal(read_npy(tmp_path / "a.npy"), array)


@given(content=hostile.npy_files())
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_an_array_or_a_line(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "a.npy"
    path.write_bytes(content)
    array = hostile.success_or_one_line(lambda: read_npy(path))
    assert array is None or not array.dtype.hasobject
    hostile.success_or_one_line(lambda: TextClassifier.load(path))
