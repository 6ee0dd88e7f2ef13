"""The data scripts run as users run them: one line on bad input, exit codes, nothing done twice."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prompt_core.errors import run_command

pytest.importorskip("detectron2")

ROOT = Path(__file__).resolve().parents[2]


class Done:
    """Exit code and what was printed."""

    def __init__(self, returncode: int, stdout: str, stderr: str) -> None:
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script's ``main`` in this process, as its last lines do: starting Python anew takes seconds each time."""

    def call(script: str, *arguments: str) -> Done:
        spec = importlib.util.spec_from_file_location(f"script_{Path(script).stem}", ROOT / "datasets" / script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(SystemExit) as caught:
            run_command(lambda: module.main(list(arguments)))
        printed = capsys.readouterr()
        return Done(int(caught.value.code or 0), printed.out, printed.err)

    return call


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_a_script_starts_by_itself(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POMP_DATA": str(tmp_path)}
    command = [sys.executable, str(ROOT / "datasets/check.py"), "coco"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert str(tmp_path / "coco/annotations/instances_val2017.json") in done.stdout


def test_check_lists_paths_and_ways(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    done = run("check.py", "lvis")
    assert done.returncode == 1, done.stderr
    for name in ("lvis_v1_train", "lvis_v1_train_norare", "lvis_v1_val", "lvis_v1_minival"):
        assert str(tmp_path / f"lvis/{name}.json") in done.stdout
    assert "to do: download lvis_v1_train.json.zip from lvisdataset.org/dataset" in done.stdout
    done = run("check.py", "lviss", "--root", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'lviss' is no group of data sets; nearest: 'lvis'")
    assert len(done.stderr.splitlines()) == 1


def test_imagenet_labels_from_the_command_line(run: Run, tmp_path: Path) -> None:
    done = run("prepare_imagenet_lvis.py", "--root", str(tmp_path))
    assert done.returncode == 2
    assert "imagenet/ImageNet-LVIS does not exist" in done.stderr
    photo = tmp_path / "imagenet/ImageNet-LVIS/n02084071/a.JPEG"
    photo.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(photo)
    done = run("prepare_imagenet_lvis.py", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "imagenet_lvis_image_info.json: written" in done.stdout
    assert "996 classes have no photos there" in done.stdout
    assert "nothing to do" in run("prepare_imagenet_lvis.py", "--root", str(tmp_path)).stdout
    done = run("check.py", "imagenet_lvis", "--root", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "1 photos" in done.stdout


@pytest.mark.parametrize("script", ["prepare_lvis.py", "prepare_coco.py", "prepare_objects365.py"])
def test_preparation_without_a_source_is_one_line(run: Run, tmp_path: Path, script: str) -> None:
    done = run(script, "--root", str(tmp_path))
    assert done.returncode == 2
    assert "says how to get them" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_a_damaged_source_is_one_line(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "coco/annotations/instances_val2017.json", {"images": [], "categories": []})
    done = run("prepare_coco.py", "--root", str(tmp_path))
    assert done.returncode == 2
    assert "the list 'annotations' is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1
