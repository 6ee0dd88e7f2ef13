"""A process that holds an output folder."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from prompt_core.runs.lock import LOCK_FILE

ROOT = Path(__file__).resolve().parents[2]
HOLD = "import sys, time; from prompt_core.runs.lock import alone_in\nwith alone_in(sys.argv[1]): time.sleep(60)"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process holds the folder within."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT)
    file, deadline = folder / LOCK_FILE, time.monotonic() + 60
    while time.monotonic() < deadline and not (file.exists() and file.read_text()):
        time.sleep(0.02)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
