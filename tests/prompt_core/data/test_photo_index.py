"""The index of archives: built once, restartable after each archive, made anew when an archive has changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prompt_core.data.photo_index import Archive, ArchivePhotos, PhotoIndex, photo_index, read_index
from prompt_core.data.photo_keys import PhotoKeys
from prompt_core.errors import UserError
from prompt_core.runs.lock import alone_in

COUNTS = {"n2": 3, "n1": 4, "n3": 2}


class Killed(BaseException):
    """What a signal does."""


class Builder:
    """Builds an index of three archives in one file, and counts what it reads."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "whole.tar"
        self.file.write_bytes(bytes(1000) + b"first")
        self.read: list[str] = []
        self.stop_at: str | None = None

    def archives(self, faults: list[str]) -> list[Archive]:
        faults.append("the file is cut")
        return [Archive(f"{name}.tar", 0, 1000 * row, 1000) for row, name in enumerate(COUNTS)]

    def photos(self, archive: Archive) -> ArchivePhotos:
        if archive.name == self.stop_at:
            raise Killed
        self.read.append(archive.name)
        name = archive.name.partition(".")[0]
        numbers = list(range(COUNTS[name]))[::-1]
        names = [f"{name}_{number}.JPEG" for number in numbers]
        offsets = [archive.start + number for number in numbers]
        return ArchivePhotos(archive, [name] * len(names), names, offsets, [5] * len(names), others=1)

    def __call__(self) -> PhotoIndex:
        folder = self.file.with_name("index")
        return photo_index(folder, [self.file], lambda faults: iter(self.archives(faults)), self.photos)


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def names_of(index: PhotoIndex) -> list[str]:
    return list(PhotoKeys(index.text, index.ends, [""], np.zeros(len(index.ends), np.int32)))


def test_photos_are_sorted_by_class_and_name_and_mapped(build: Builder) -> None:
    index = build()
    assert index.classes == ["n1", "n2", "n3"]
    assert index.counts.tolist() == [4, 3, 2]
    assert index.starts.tolist() == [0, 4, 7, 9]
    assert names_of(index) == [f"{name}_{number}.JPEG" for name in sorted(COUNTS) for number in range(COUNTS[name])]
    assert index.places.tolist() == [
        [0, 1000 * row + number, 5] for row, name in ((1, "n1"), (0, "n2"), (2, "n3")) for number in range(COUNTS[name])
    ]
    assert (index.faults, index.fault_count, index.others) == (["the file is cut"], 1, 3)
    assert all(isinstance(array, np.memmap) for array in (index.places, index.text, index.ends))
    assert build().folder == index.folder
    assert build.read == ["n2.tar", "n1.tar", "n3.tar"], "the second time nothing is read"
    assert sorted(path.name for path in index.folder.iterdir()) == ["ends.npy", "index.json", "names.npy", "places.npy"]


@pytest.mark.parametrize(
    "damage", [lambda line: line, lambda line: line[:-5], lambda line: line[:-9] + b"0" + line[-8:]]
)
def test_a_killed_run_goes_on(build: Builder, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    build.stop_at = "n3.tar"
    with pytest.raises(Killed):
        build()
    assert read_index(tmp_path / "index", [build.file]) is None, "nothing looks finished"
    progress = tmp_path / "index/progress.jsonl"
    lines = progress.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    damaged = damage(lines[-1])
    progress.write_bytes(b"".join(lines[:-1]) + damaged)
    build.stop_at, build.read = None, []
    resumed = build()
    assert build.read == (["n3.tar"] if damaged == lines[-1] else ["n1.tar", "n3.tar"])
    shutil.rmtree(tmp_path / "index")
    whole = build()
    assert names_of(resumed) == names_of(whole)
    assert resumed.places.tolist() == whole.places.tolist()


def test_a_changed_archive_is_noticed(
    build: Builder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = build.archives
    monkeypatch.setattr(build, "archives", lambda faults: faulty([]))
    build()
    copied = time.time() + 100
    os.utime(build.file, (copied, copied))
    build()
    assert len(build.read) == 3, "a copy has another time and the same bytes"
    build.file.write_bytes(bytes(1000) + b"other")
    os.utime(build.file, (copied + 100, copied + 100))
    build()
    assert len(build.read) == 6
    assert "its archives have changed since; it is built anew" in capsys.readouterr().err
    monkeypatch.setattr(build, "archives", faulty)
    build.file.write_bytes(bytes(2000))
    build()
    assert len(build.read) == 9
    os.utime(build.file, (copied + 200, copied + 200))
    build()
    assert len(build.read) == 12, "it had a fault, which may be mended by now"


@pytest.mark.parametrize("file", ["index.json", "places.npy", "names.npy", "ends.npy"])
def test_a_damaged_index_is_built_anew(build: Builder, tmp_path: Path, file: str) -> None:
    build()
    path = tmp_path / "index" / file
    path.write_bytes(path.read_bytes()[:-20])
    assert names_of(build())[0] == "n1_0.JPEG"
    assert len(build.read) == 6


def test_of_two_processes_one_builds_and_the_other_waits(
    build: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = alone_in(tmp_path / "index")
    held.__enter__()
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            held.__exit__(None, None, None)

    monkeypatch.setattr("prompt_core.data.photo_index.time.sleep", sleep)
    assert build().classes == ["n1", "n2", "n3"]
    assert len(waited) == 2
    assert capsys.readouterr().err.count("waiting for it") == 1


def test_archives_that_change_meanwhile_and_a_folder_that_cannot_be_made(build: Builder, tmp_path: Path) -> None:
    photos = build.photos

    def changing(archive: Archive) -> ArchivePhotos:
        build.file.write_bytes(bytes(4000))
        return photos(archive)

    build.photos = changing  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"the archives changed while .*index was built; run again"):
        build()
    assert read_index(tmp_path / "index", [build.file]) is None
    build.file.unlink()
    os.mkfifo(build.file)
    with pytest.raises(UserError, match=r"whole.tar: it is a pipe or a device"):
        build()
    shutil.rmtree(tmp_path / "index")
    (tmp_path / "index").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write to .*index"):
        build()


def test_progress_of_another_file_is_not_gone_on_with(build: Builder) -> None:
    build.stop_at = "n3.tar"
    with pytest.raises(Killed):
        build()
    build.file.write_bytes(bytes(3000))
    build.stop_at, build.read = None, []
    build()
    assert build.read == ["n2.tar", "n1.tar", "n3.tar"]


def test_photos_that_are_there_twice_and_archives_without_any(build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [Archive("n2.tar", 0, 0, 1000), Archive("n2.tar", 0, 1000, 1000)]
    monkeypatch.setattr(build, "archives", lambda faults: twice)
    index = build()
    assert index.faults == ["n2: 3 photos are there twice; of each the last is taken"]
    assert index.places[:, 1].tolist() == [1000, 1001, 1002]
    shutil.rmtree(index.folder)
    monkeypatch.setattr(build, "archives", lambda faults: faults.append("the file is no archive") or [])
    with pytest.raises(UserError, match=r"^the file is no archive$"):
        build()
