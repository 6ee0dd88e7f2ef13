"""``datasets/prepare.py`` as users run it: one line on bad input, exit codes, nothing done twice."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ..support.data_files import save

pytest.importorskip("detectron2")

Run = Callable[..., tuple[int, str, str]]
NAMES = (
    *("ade20k", "ade20k_full", "cc3m", "coco", "coco_small", "coco_small_seg", "coco_stuff", "imagenet21k"),
    *(
        "imagenet_21k",
        "imagenet_lvis",
        "lvis",
        "lvis_coco",
        "objects365",
        "openimages",
        "pcontext",
        "semseg_samples",
        "shapes_seg",
        "voc_seg",
    ),
)


def test_help_lists_the_data_sets(run: Run) -> None:
    code, output, _ = run("prepare", "--help")
    assert code == 0
    assert [line.split()[0] for line in output.partition("data sets:\n")[2].splitlines()] == list(NAMES)
    code, output, _ = run("prepare", "imagenet_lvis", "--help")
    assert code == 0
    assert all(
        option in output for option in ("--root", "--overwrite", "--photos", "--wnids", "--wordnet", "--mapping")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lviss"], "'lviss' is not a data set to prepare; nearest: 'lvis'"),
        ([], "the following arguments are required: NAME"),
        (["lvis", "--rot", "x"], "unrecognized arguments: --rot x"),
        (["imagenet_lvis", "--wordnet", "a", "--mapping", "b"], "give --wordnet or --mapping, not both"),
        (["coco_small", "--from-coco", "no"], "no/annotations/instances_train2017.json does not exist"),
        (["coco", "--from-coco", "no"], "unrecognized arguments: --from-coco no"),
    ],
)
def test_bad_arguments_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    code, _, errors = run("prepare", *arguments)
    assert code == 2
    assert errors.startswith(f"error: {message}")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "imagenet21k"])
def test_without_a_source_one_line(run: Run, tmp_path: Path, name: str) -> None:
    code, _, errors = run("prepare", name, "--root", tmp_path)
    assert code == 2
    assert errors.startswith("error: ")
    assert len(errors.splitlines()) == 1
    assert str(tmp_path) in errors
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_damaged_source_is_one_line(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "coco/annotations/instances_val2017.json", {"images": [], "categories": []})
    code, _, errors = run("prepare", "coco", "--root", tmp_path)
    assert code == 2
    assert "the list 'annotations' is missing" in errors
    assert len(errors.splitlines()) == 1


def test_prepare_and_check(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    folder = tmp_path / "ADEChallengeData2016"
    for split in ("training", "validation"):
        save(folder / f"annotations/{split}/a.png", np.array([[0, 1, 150]], np.uint8))
        save(folder / f"images/{split}/a.jpg", np.zeros((1, 3, 3), np.uint8))
    code, output, _ = run("check", "ade20k")
    assert code == 1
    assert "to do: download ADEChallengeData2016.zip" in output
    assert "run python datasets/prepare.py ade20k\n" in output
    code, output, errors = run("prepare", "ade20k")
    assert code == 0, errors
    assert output.count("1 labels written") == 2
    assert run("prepare", "ade20k")[1].count("nothing to do, 1 labels") == 2
    code, output, _ = run("check", "ade20k")
    assert code == 1
    assert "1 labels; the published set has 2,000" in output
    labels = folder / "annotations_detectron2/validation"
    (labels / "a.png").write_bytes(b"half")
    code, _, errors = run("prepare", "ade20k")
    assert code == 2
    assert f"the first is {labels}/a.png; move them away, or give --overwrite" in errors
    assert run("prepare", "ade20k", "--overwrite")[0] == 0


def test_full_ade20k_says_how_many_classes_there_are(run: Run, tmp_path: Path) -> None:
    for split in ("training", "validation"):
        place = tmp_path / f"ADE20K_2021_17_01/images/ADE/{split}/urban"
        save(place / f"{split}_seg.png", np.full((2, 2, 3), (10, 44, 0), np.uint8))  # 256 + 44
        save(place / f"{split}.jpg", np.zeros((2, 2, 3), np.uint8))
        save(place / f"{split}.json", {"annotation": {"object": [{"name": "sky", "name_ndx": 300}]}})
    code, output, errors = run("prepare", "ade20k_full", "--root", tmp_path)
    assert code == 0, errors
    assert "classes_detectron2.json has 1 classes; published numbers are of 847" in output
    given = save(tmp_path / "mine.json", {"names": ["heaven"], "ids": [300]})
    assert run("prepare", "ade20k_full", "--root", tmp_path, "--classes", given)[0] == 0
    assert json.loads((tmp_path / "ADE20K_2021_17_01/classes_detectron2.json").read_text())["names"] == ["heaven"]


def test_imagenet_labels(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "imagenet/ImageNet-LVIS"
    save(folder / "n02084071/a.JPEG", np.zeros((8, 9, 3), np.uint8))
    (folder / "n02084071/b.JPEG").write_bytes(b"no photo")
    with tarfile.open(folder / "n02121620.tar", "w") as archive:
        archive.add(folder / "n02084071/a.JPEG", "c.JPEG")
    code, output, errors = run("prepare", "imagenet_lvis", "--root", tmp_path)
    assert code == 0, errors
    assert "imagenet_lvis_image_info.json: written" in output
    assert "995 classes have no photos there: n00007846, " in output
    assert "1 photos left out (unreadable)" in output
    assert "nothing to do" in run("prepare", "imagenet_lvis", "--root", tmp_path)[1]
    code, output, _ = run("check", "imagenet_lvis", "--root", tmp_path)
    assert code == 0, output
    assert "2 photos" in output
    only = tmp_path / "wnids.txt"
    only.write_text("n02121620\n")
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("n02121620 cat.n.01\n")
    assert run("prepare", "imagenet_lvis", "--root", tmp_path, "--wnids", only, "--mapping", mapping)[0] == 0
    listed = json.loads((tmp_path / "imagenet/annotations/imagenet_lvis_image_info.json").read_text())
    assert [image["file_name"] for image in listed["images"]] == ["n02121620/c.JPEG"]
