"""One run at a time in a folder: who holds it is named, and what dead runs left is taken over."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from prompt_core import UserError
from prompt_core.config import load_config
from prompt_core.runs import lock
from prompt_core.runs.lock import LOCK_FILE, alone_in
from prompt_core.training.recipe import pretrain

from ...support.held_folder import held


def test_the_holder_is_named_until_it_is_dead(tmp_path: Path) -> None:
    with held(tmp_path / "run") as process:
        words = rf"another run is in .*/run: process {process.pid} on {socket.gethostname()}, since 20.*; wait for it"
        for _ in range(2):
            with pytest.raises(UserError, match=words), alone_in(tmp_path / "run"):
                pass
        with pytest.raises(UserError, match=words):
            pretrain(load_config(), tmp_path / "run")
        with alone_in(tmp_path / "other"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert json.loads((tmp_path / "run" / LOCK_FILE).read_text())["process"] == process.pid
    with alone_in(tmp_path / "run"), alone_in(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK_FILE).read_text())["process"] == os.getpid()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_on_another_machine_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WATCHED_FOR", 0.4)
    held = tmp_path / LOCK_FILE
    held.write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "2026"}))
    touching = threading.Timer(0.2, lambda: os.utime(held, (1, 1)))
    touching.start()
    with pytest.raises(UserError, match="process 1 on elsewhere, since 2026"), alone_in(tmp_path):
        pass
    touching.join()
    with alone_in(tmp_path):  # nobody touches it any more
        assert json.loads(held.read_text())["process"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 3}'])
def test_a_damaged_file_holds_nothing(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WATCHED_FOR", 0.05)
    (tmp_path / LOCK_FILE).write_text(content)
    with alone_in(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
