"""``datasets/check.py`` on classification data sets, as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
# detectron2 cannot be imported: classification does without it
SCRIPT = f"""
import runpy, sys
sys.modules["detectron2"] = None
sys.argv[0] = {str(ROOT / "datasets/check.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [
        (["caltech101"], 1, "caltech-101"),
        (["ImageNetV2"], 1, "imagenetv2-matched-frequency-format-val (github.com/modestyachts/ImageNetV2)"),
        (["caltech102"], 2, "error: 'caltech102' is no group of data sets; nearest: 'caltech101'"),
        (["fgvc_aircraft"], 1, "expected 100 (literature) classes; expected 3,333"),
    ],
)
def test_exit_codes_and_lines(tmp_path: Path, arguments: list[str], code: int, printed: str) -> None:
    if "aircraft" in arguments[0]:
        folder = tmp_path / "fgvc_aircraft"
        (folder / "images").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "images" / "0000001.jpg")
        (folder / "variants.txt").write_text("707-320\n")
        for part in ("train", "val", "test"):
            (folder / f"images_variant_{part}.txt").write_text("0000001 707-320\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POMP_DATA": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, done.stderr
    assert printed in " ".join((done.stdout + done.stderr).split())
    assert len(done.stderr.splitlines()) == (1 if code == 2 else 0)
