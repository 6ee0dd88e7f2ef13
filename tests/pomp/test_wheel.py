"""The package as it is installed: a wheel with everything that commands read, which needs no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("prompt_core", "pomp_engine", "pomp_det", "pomp_seg", "pomp", "pomp_lab")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel that was built from a copy of the tracked kinds of files."""
    pytest.importorskip("setuptools", reason="builds the wheel")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*PACKAGES, "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    build = ["-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)]
    done = subprocess.run([sys.executable, *build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_file_beside_the_modules_is_in_it(installed: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("this is no checkout of git")
    missing = [name for name in tracked.stdout.splitlines() if not (installed / name).is_file()]
    assert missing == []
    assert {path.name for path in installed.iterdir() if path.is_dir() and "dist-info" not in path.name} == set(
        PACKAGES
    )


@pytest.mark.slow
def test_commands_run_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    origin = run(installed, tmp_path, "-c", "import pomp, pomp_det, prompt_core; print(pomp.__file__)")
    assert Path(origin.strip()).is_relative_to(installed)
    models = json.loads(run(installed, tmp_path, "-m", "pomp", "models", "--json"))
    assert [model["name"] for model in models if model["embedded"]] == ["mini", "mini/detector", "mini/segmenter"]
    for model in models:
        assert model["file"] is None or Path(model["file"]).is_relative_to(installed)
    doctor = run(installed, tmp_path, "-m", "pomp", "doctor")
    assert "pip install -e" not in doctor
    run(installed, tmp_path, "-m", "pomp", "export", "--words", "cat,dog", "--output", "words.npy")
    assert (tmp_path / "words.npy").is_file()
    shutil.copy(ROOT / "docs/images/street.jpg", tmp_path)
    run(installed, tmp_path, "-m", "pomp", "classify", "street.jpg", "--words", "street,dog", "--output", "named")
    assert (tmp_path / "named/results.csv").is_file()
    pytest.importorskip("detectron2")
    for task in ("detect", "segment"):
        words = ["street.jpg", "--words", "bus,person", "--output", task]
        run(installed, tmp_path, "-m", "pomp", task, *words)
        assert any((tmp_path / task).glob("*.json"))
