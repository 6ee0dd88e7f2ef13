"""Several processes of a run: one that dies, and a signal to their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("detectron2")

ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import os, sys, time
from pathlib import Path
from detectron2.utils import comm
from pomp_engine.processes import run_processes
from prompt_core.command_line import asked_to_stop
from prompt_core.errors import run_command

def work(folder):
    rank = comm.get_rank()
    with asked_to_stop() as asked:
        (folder / f"{rank}.txt").write_text(str(os.getpid()))
        while not asked:
            time.sleep(0.02)
    (folder / f"{rank}.saved").touch()
    raise KeyboardInterrupt

if __name__ == "__main__":
    run_command(lambda: run_processes(work, 0, 2, (Path(sys.argv[1]),)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_together(tmp_path: Path, number: signal.Signals) -> None:
    """A signal to the parent lets all save; of a process that is killed the others do not outlive."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen([sys.executable, script, tmp_path], env=environment, stderr=subprocess.PIPE, text=True)
    files, deadline = [tmp_path / f"{rank}.txt" for rank in range(2)], time.monotonic() + 120
    while time.monotonic() < deadline and not all(file.exists() and file.read_text() for file in files):
        time.sleep(0.05)
    children = [int(file.read_text()) for file in files]
    os.kill(children[1] if number == signal.SIGKILL else parent.pid, number)
    _, error = parent.communicate(timeout=60)
    last = error.strip().splitlines()[-1]
    if number == signal.SIGKILL:
        assert parent.returncode == 2
        assert last.startswith("error: process 1 of 2 was killed by SIGKILL")
    else:
        assert (parent.returncode, last) == (130, "interrupted")
        assert {path.name for path in tmp_path.glob("*.saved")} == {"0.saved", "1.saved"}
    assert not any(Path(f"/proc/{child}").exists() for child in children)
