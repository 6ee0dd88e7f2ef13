"""The segmentation scripts of ``datasets/`` run as users run them: output, exit codes, one line on bad input."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("detectron2")

from prompt_core.errors import run_command

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "datasets").glob("prepare_*.py") if "pomp_seg" in path.read_text())
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script's ``main`` in this process: exit code, output, errors."""

    def call(script: str, *arguments: str) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(f"script_{Path(script).stem}", ROOT / "datasets" / script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(SystemExit) as caught:
            run_command(lambda: module.main(list(arguments)))
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return call


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(value).save(path)


def test_every_script_is_tested() -> None:
    assert len(SCRIPTS) == 8


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_a_source_one_line(run: Run, tmp_path: Path, script: str) -> None:
    code, _, errors = run(script, "--root", str(tmp_path))
    assert code == 2
    assert errors.startswith("error: ")
    assert len(errors.splitlines()) == 1
    assert str(tmp_path) in errors


def test_prepare_and_check(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    folder = tmp_path / "ADEChallengeData2016"
    for split in ("training", "validation"):
        save(folder / f"annotations/{split}/a.png", np.array([[0, 1, 150]], np.uint8))
        save(folder / f"images/{split}/a.jpg", np.zeros((1, 3, 3), np.uint8))
    code, output, _ = run("check.py", "ade20k")
    assert code == 1
    assert "to do: download ADEChallengeData2016.zip" in output
    code, output, errors = run("prepare_ade20k.py")
    assert code == 0, errors
    assert output.count("1 labels written") == 2
    assert run("prepare_ade20k.py")[1].count("nothing to do, 1 labels") == 2
    code, output, _ = run("check.py", "ade20k")
    assert code == 1
    assert "1 labels; the published set has 2,000" in output
    labels = folder / "annotations_detectron2/validation"
    (labels / "a.png").write_bytes(b"half")
    code, _, errors = run("prepare_ade20k.py")
    assert code == 2
    assert f"the first is {labels}/a.png; move them away, or give --overwrite" in errors
    assert run("prepare_ade20k.py", "--overwrite")[0] == 0


def test_full_ade20k_says_how_many_classes_there_are(run: Run, tmp_path: Path) -> None:
    for split in ("training", "validation"):
        place = tmp_path / f"ADE20K_2021_17_01/images/ADE/{split}/urban"
        save(place / f"{split}_seg.png", np.full((2, 2, 3), (10, 44, 0), np.uint8))  # 256 + 44
        save(place / f"{split}.jpg", np.zeros((2, 2, 3), np.uint8))
        text = json.dumps({"annotation": {"object": [{"name": "sky", "name_ndx": 300}]}})
        (place / f"{split}.json").write_text(text, encoding="utf-8")
    code, output, errors = run("prepare_ade20k_full.py", "--root", str(tmp_path))
    assert code == 0, errors
    assert "classes_detectron2.json has 1 classes; published numbers are of 847" in output


def test_check_knows_the_groups_of_both_tasks(run: Run, tmp_path: Path) -> None:
    code, output, _ = run("check.py", "all", "--root", str(tmp_path))
    assert code == 1
    for name in ("lvis_v1_val", "voc_sem_seg_test", "ade20k_full_sem_seg_val", "coco_2017_test_stuff_sem_seg"):
        assert name in output
    assert "coco_small" not in output
    code, _, errors = run("check.py", "voc_sef", "--root", str(tmp_path))
    assert code == 2
    assert errors.startswith("error: 'voc_sef' is no group of data sets; nearest: 'voc_seg'")
