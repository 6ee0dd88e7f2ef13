"""``datasets/check.py`` as users run it: paths, ways to get what is missing, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
# detectron2 cannot be imported: classification does without it
WITHOUT_DETECTRON2 = f"""
import runpy, sys
sys.modules["detectron2"] = None
sys.argv[0] = {str(ROOT / "datasets/check.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
Run = Callable[..., tuple[int, str, str]]


def test_a_broken_set_ends_with_code_2_and_classification_needs_no_detectron2(tmp_path: Path) -> None:
    folder = tmp_path / "caltech-101"
    (folder / "101_ObjectCategories").mkdir(parents=True)
    (folder / "split_zhou_Caltech101.json").write_text("[]")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POMP_DATA": str(tmp_path)}
    command = [sys.executable, "-c", WITHOUT_DETECTRON2, "classification"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr == ""
    printed = " ".join(done.stdout.split())
    assert "is not a CoOp split file" in printed
    assert "imagenetv2" in printed, "the other sets are reported as well"


@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [
        (["caltech101"], 1, "caltech-101"),
        (["ImageNetV2"], 1, "imagenetv2-matched-frequency-format-val (github.com/modestyachts/ImageNetV2)"),
        (["caltech102"], 2, "error: 'caltech102' is not a group of data sets; nearest: 'caltech101'"),
        (["fgvc_aircraft"], 1, "expected 100 (literature) classes; expected 3,333"),
    ],
)
def test_classification_sets(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, printed: str
) -> None:
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    if "aircraft" in arguments[0]:
        folder = tmp_path / "fgvc_aircraft"
        (folder / "images").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "images" / "0000001.jpg")
        (folder / "variants.txt").write_text("707-320\n")
        for part in ("train", "val", "test"):
            (folder / f"images_variant_{part}.txt").write_text("0000001 707-320\n")
    status, output, errors = run("check", *arguments)
    assert status == code, errors
    assert printed in " ".join((output + errors).split())
    assert len(errors.splitlines()) == (1 if code == 2 else 0)


def test_any_source(run: Run, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "mine" / name / "a.jpg")
    code, output, errors = run("check", tmp_path / "mine")
    assert code == 0, output + errors
    assert "train, val, test: 2 classes, 2 photos, all of them read" in " ".join(output.split())
    (tmp_path / "mine" / "dog" / "a.jpg").write_bytes(b"")
    code, output, errors = run("check", f"folder:{tmp_path}/mine")
    assert code == 1, output + errors
    assert "1 photos are empty files" in " ".join(output.split())
    code, _, errors = run("check", f"folder:{tmp_path}/gone")
    assert code == 2
    assert len(errors.splitlines()) == 1


def test_detection_sets(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("detectron2")
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    code, output, errors = run("check", "lvis")
    assert code == 1, errors
    for name in ("lvis_v1_train", "lvis_v1_train_norare", "lvis_v1_val", "lvis_v1_minival"):
        assert str(tmp_path / f"lvis/{name}.json") in output
    assert f"to do: python tools/fetch.py lvis_v1_train.json.zip --root {tmp_path}\n" in output
    assert f"lvis_v1_train.json.zip --root {tmp_path} && python datasets/prepare.py lvis\n" in output
    code, _, errors = run("check", "lviss", "--root", tmp_path)
    assert code == 2
    assert errors.startswith("error: 'lviss' is not a group of data sets; nearest: 'lvis'")
    assert len(errors.splitlines()) == 1


def test_published_files_stand_with_the_data_that_needs_them(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    code, output, _ = run("check", "lvis", "--root", tmp_path, "--models", tmp_path / "models")
    assert code == 1
    assert (
        f"to do: python tools/fetch.py lvis_v1_clip_pomp+cname.npy --root {tmp_path} (1.2 MB); or build it: " in output
    )
    assert f"--output {tmp_path}/metadata/lvis_v1_clip_pomp+cname.npy\n" in output
    assert f"to do: python tools/fetch.py resnet50_miil_21k.pkl --models {tmp_path}/models" in output
    assert "optional: python tools/fetch.py BoxSup-C2_Lbase_CLIP_R5021k_640b64_4x.pth" in output


def test_all_has_the_groups_of_every_task(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    code, output, _ = run("check", "all", "--root", tmp_path)
    assert code == 1
    for name in ("lvis_v1_val", "voc_sem_seg_test", "ade20k_full_sem_seg_val", "coco_2017_test_stuff_sem_seg"):
        assert name in output
    for name in ("coco_clip_a+cname.npy", "o365_fixname_clip_pomp+cname.npy", "R-103.pkl"):
        assert output.count(f"to do: python tools/fetch.py {name} ") == 1, "each file once"
    assert "coco_small" not in output
    code, _, errors = run("check", "voc_sef", "--root", tmp_path)
    assert code == 2
    assert errors.startswith("error: 'voc_sef' is not a group of data sets; nearest: 'voc_seg'")


def test_groups_of_published_files_alone(run: Run, tmp_path: Path, shared: Path) -> None:
    code, output, errors = run("check", "class_matrices", "--root", tmp_path)
    assert (code, errors) == (1, "")
    (tmp_path / "metadata").symlink_to(shared / "data/clip_text")
    code, output, errors = run("check", "class_matrices", "--root", tmp_path)
    assert (code, errors) == (0, "")
    assert output.count("as published") == 7
    code, output, _ = run("check", "prompts", "--root", tmp_path)
    assert code == 1
    assert (
        "or open https://drive.google.com/file/d/1C8oU6cWkJdU3Q3IHaqTcbIToRLo9bMnu/view in a browser and save" in output
    )
