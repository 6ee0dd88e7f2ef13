"""A few bytes that unpack to many are refused before they are unpacked."""

from __future__ import annotations

import io
import resource
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

from prompt_core.data.readers.original_lists import read_mat
from prompt_core.documents import mat_files
from prompt_core.errors import UserError
from prompt_core.fetch.unpack import unpack_zip
from prompt_core.safe_load import load_restricted, read_state_dict

from ...support import hostile


def bomb(path: Path, name: str, size: int = 1 << 26) -> Path:
    """An archive of one member of zeros, a thousandth of its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"\0" * size)
    return path


def test_a_zip_archive_that_unpacks_to_far_more(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.zip", "annotations.json")
    with pytest.raises(UserError, match=r"claims 1 files of 67,108,864 bytes, far more than an archive of its size"):
        unpack_zip(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(content=hostile.zip_files())
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_unpacked_inside_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("zip")
    (root / "a.zip").write_bytes(content)
    hostile.success_or_one_line(lambda: unpack_zip(root / "a.zip", root / "out"))
    outside = [path for path in root.rglob("*") if (root / "out") not in (path, *path.parents)]
    assert outside == [root / "a.zip"]
    assert not any(path.is_symlink() for path in root.rglob("*"))


@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/data/0"])
def test_a_checkpoint_that_unpacks_to_far_more(name: str, tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.pt", name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (load_restricted, read_state_dict):
        with pytest.raises(UserError, match=r"a\.pt could not be read"):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB


def test_a_checkpoint_of_zeros_is_no_bomb(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1000, 1000)}, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt")["weight"].shape == (1000, 1000)


def test_a_matlab_file_that_unpacks_to_far_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    stream = io.BytesIO()
    scipy_io.savemat(stream, {"labels": [1, 2, 3]}, do_compression=True)
    (tmp_path / "a.mat").write_bytes(stream.getvalue())
    assert read_mat(tmp_path / "a.mat", "labels").tolist() == [1, 2, 3]
    monkeypatch.setattr(mat_files, "UNPACKED_BYTES", 1 << 25)
    packed = zlib.compress(b"\0" * (1 << 25))
    part = struct.pack("<II", 15, len(packed)) + packed
    (tmp_path / "a.mat").write_bytes(stream.getvalue()[:128] + part * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"a\.mat unpacks to more than 33,554,432 bytes"):
        read_mat(tmp_path / "a.mat", "labels")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB
