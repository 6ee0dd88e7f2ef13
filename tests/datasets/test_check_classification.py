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


def run_check(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POMP_DATA": str(root)}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


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
    done = run_check(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert printed in " ".join((done.stdout + done.stderr).split())
    assert len(done.stderr.splitlines()) == (1 if code == 2 else 0)


def test_any_source_and_its_exit_code(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "mine" / name / "a.jpg")
    done = run_check(tmp_path / "absent", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train, val, test: 2 classes, 2 photos, all of them read" in " ".join(done.stdout.split())
    (tmp_path / "mine" / "dog" / "a.jpg").write_bytes(b"")
    done = run_check(tmp_path / "absent", f"folder:{tmp_path}/mine")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 photos are empty files" in " ".join(done.stdout.split())
    done = run_check(tmp_path / "absent", f"folder:{tmp_path}/gone")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_broken_set_ends_with_code_2(tmp_path: Path) -> None:
    folder = tmp_path / "caltech-101"
    (folder / "101_ObjectCategories").mkdir(parents=True)
    (folder / "split_zhou_Caltech101.json").write_text("[]")
    done = run_check(tmp_path, "classification")
    assert done.returncode == 2
    assert done.stderr == ""
    printed = " ".join(done.stdout.split())
    assert "is no CoOp split file" in printed
    assert "imagenetv2" in printed, "the other sets are told as well"
