"""What a full disk and a killed process leave behind: the earlier file, and nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from prompt_core.classifier import TextClassifier
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, write_json, write_safetensors, write_text
from prompt_core.prompt import SoftPrompt
from prompt_core.temporary_files import (
    ABANDONED_SECONDS,
    new_temporary,
    new_temporary_folder,
    remove_abandoned,
    temporary_folder,
)
from prompt_core.training.artifacts import save_state
from prompt_core.training.loop import LearningState

from ..support.full_disk import largest_file

ROOT = Path(__file__).resolve().parent.parent.parent


def _save_torch(path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.save({"a": torch.ones(10_000)}, temporary)


def _save_state(path: Path) -> None:
    save_state(path, LearningState(), nn.Linear(100, 100), {})


def _save_array(path: Path) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, np.ones(10_000))


def _save_picture(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(noise).save(temporary, format="PNG")


def _stream(path: Path) -> None:
    with atomic_path(path) as temporary, open(temporary, "w") as stream:
        for _ in range(10_000):
            stream.write("a line\n")


WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "x" * 10_000),
    "json": lambda path: write_json(path, ["x"] * 10_000),
    "safetensors": lambda path: write_safetensors(path, {"a": torch.ones(10_000)}, {}),
    "prompt": lambda path: SoftPrompt(torch.ones(16, 512)).save(path),
    "classifier": lambda path: TextClassifier(torch.ones(100, 100), [str(i) for i in range(100)], {}).save(path),
    "npy": lambda path: TextClassifier(torch.ones(100, 100), [str(i) for i in range(100)], {}).save(path),
    "torch": _save_torch,
    "state": _save_state,
    "array": _save_array,
    "picture": _save_picture,
    "stream": _stream,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path, name: str, earlier: bool) -> None:
    target = tmp_path / f"out.{'npy' if name in ('npy', 'array') else 'bin'}"
    if earlier:
        target.write_bytes(b"earlier")
    with largest_file(4096), pytest.raises(UserError) as caught:
        WRITERS[name](target)
    line = str(caught.value)
    assert line.startswith(f"cannot write {target}: ")
    assert " bytes " in line
    assert ("the earlier file stands as it was" if earlier else "no file was left there") in line
    assert line.endswith("free some space or choose another place")
    assert [path.name for path in tmp_path.iterdir()] == ([target.name] if earlier else [])
    assert not earlier or target.read_bytes() == b"earlier"
    WRITERS[name](target)  # once there is space again
    assert target.stat().st_size > 4096


def test_missing_space_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with largest_file(4096), pytest.raises(UserError, match=r"10,000 bytes are needed, 5,904 are missing"):
        write_text(tmp_path / "a", "x" * 10_000)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # where disks that promise space first run out of it
    with pytest.raises(UserError, match=r"a: No space left on device \(.*; no file was left there; free some space"):
        write_text(tmp_path / "a", "x", durable=True)
    write_text(tmp_path / "a", "x")


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    for error in (FileNotFoundError(errno.ENOENT, "No such file", "b.txt"), RuntimeError("shapes differ"), KeyError(1)):
        with pytest.raises(type(error)) as caught, atomic_path(tmp_path / "a"):
            raise error
        assert caught.value is error


def test_durable_writes_reach_the_disk_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    fsync = os.fsync

    def recorded(handle: int) -> None:
        seen.append((Path(f"/proc/self/fd/{handle}").readlink().name, (tmp_path / "a").exists()))
        fsync(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("which file is flushed is read from /proc")
    monkeypatch.setattr(os, "fsync", recorded)
    write_text(tmp_path / "a", "x")
    (tmp_path / "a").unlink()
    assert seen == []
    write_text(tmp_path / "a", "x", durable=True)
    assert [exists for _, exists in seen] == [False, True]
    assert seen[0][0].startswith(".a.")
    assert seen[1][0] == tmp_path.name


WRITING = """
import sys, time
from prompt_core.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half of it")
    print(temporary.name, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_writer(target: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has written half of ``target`` and waits for a line; and its temporary file."""
    command = [sys.executable, "-c", WRITING, str(target)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process, target.with_name(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    with another_writer(tmp_path / "a.txt") as (killed, left), another_writer(tmp_path / "b.txt") as (living, used):
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.read_text() == used.read_text() == "half of it"
        (tmp_path / ".hidden.tmp").write_text("the user's")
        make_output_folder(tmp_path)
        assert not left.exists()
        assert used.exists()
        living.communicate("go on\n")
        assert living.returncode == 0
    assert (tmp_path / "b.txt").read_text() == "half of it"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.tmp", "b.txt"]


def test_the_first_write_in_a_folder_removes_them_too(tmp_path: Path) -> None:
    with another_writer(tmp_path / "a.txt") as (killed, left):
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        write_text(tmp_path / "other.txt", "x")
        assert not left.exists()


def test_files_of_other_machines_are_left_alone_for_a_week(tmp_path: Path) -> None:
    own = new_temporary(tmp_path / "a.json")
    machine = own.name.split(".")[-3].split("-")[0]
    other = tmp_path / own.name.replace(machine, "0" * 8)
    other.write_text("x")
    folder = tmp_path / other.name.replace("a.json", "folder")
    folder.mkdir()
    (folder / "features.npy").write_text("x")
    now = time.time()
    assert remove_abandoned(tmp_path, now) == []
    assert remove_abandoned(tmp_path, now + ABANDONED_SECONDS - 60) == []
    os.utime(folder, (now - 1e7, now - 1e7))
    assert remove_abandoned(tmp_path, now) == [], "something in it is new"
    assert sorted(remove_abandoned(tmp_path, now + ABANDONED_SECONDS + 60)) == sorted([other, folder])
    assert own.exists(), "its process lives, however old it is"
    assert remove_abandoned(tmp_path / "absent", now) == []


@pytest.mark.parametrize("name", ["a" * 250, "é" * 120 + ".json", "a." + "b" * 250, "a.b.json", ".a", "a b"])
def test_any_name_that_a_file_may_have(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_temporary_folder_goes_afterwards_or_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_folder(tmp_path / "scoring") as folder:
        (folder / "a").touch()
        make_output_folder(tmp_path)
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 99_999_999)  # of no process
        (new_temporary_folder(tmp_path / "scoring") / "a").touch()
    make_output_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
