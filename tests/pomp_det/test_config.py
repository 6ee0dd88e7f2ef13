"""Configuration files: published ones load, mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from pomp_det import build_detector, load_config
from prompt_core import UserError

from ..support.detector import TINY


def test_defaults_without_a_file() -> None:
    cfg = load_config()
    assert cfg.MODEL.VOCABULARY == ""
    assert cfg.MODEL.ROI_BOX_HEAD.NORM_TEMP == 50.0
    assert cfg.MODEL.CENTERNET.SOI[-1] == [512, 10000000]


def test_published_file_with_its_base(published: Path) -> None:
    cfg = load_config(published / "Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp.yaml")
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1203  # of the base file
    assert cfg.MODEL.ROI_BOX_HEAD.IMAGE_LABEL_LOSS == "max_size"
    assert cfg.DATASETS.TRAIN == ("lvis_v1_train_norare", "imagenet_lvis_v1")  # a tuple written as a text
    assert cfg.DATALOADER.DATASET_INPUT_SCALE == [[0.1, 2.0], [0.5, 1.5]]
    assert cfg.SOLVER.WARMUP_FACTOR == 0.001
    assert Path(cfg.OUTPUT_DIR).name == "Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp"


def test_output_folder_that_is_set_stays(published: Path) -> None:
    cfg = load_config(published / "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp_cross_datasets.yaml")
    assert cfg.OUTPUT_DIR.endswith("_cross_datasets")
    assert cfg.MODEL.TEST_NUM_CLASSES == [80, 365]
    assert cfg.MODEL.TEST_CLASSIFIERS[0] == "datasets/metadata/coco_clip_pomp+cname.npy"


@pytest.mark.parametrize(
    "overrides",
    [
        ["MODEL.CENTERNET.POS_WEIGHT", "1", "MODEL.VOCABULARY", "cat,dog"],
        ["MODEL.CENTERNET.POS_WEIGHT=1", "MODEL.VOCABULARY=cat,dog"],
        {"MODEL.CENTERNET.POS_WEIGHT": 1, "MODEL.VOCABULARY": "cat,dog"},
    ],
)
def test_overrides(overrides: Any) -> None:
    cfg = load_config(None, overrides)
    assert cfg.MODEL.CENTERNET.POS_WEIGHT == 1.0
    assert isinstance(cfg.MODEL.CENTERNET.POS_WEIGHT, float)
    assert cfg.MODEL.VOCABULARY == "cat,dog"


def test_list_overrides_keep_the_kind_of_the_default() -> None:
    cfg = load_config(
        None, ["DATASETS.TEST", "a,b", "DATALOADER.DATASET_BS", "[2, 8]", "INPUT.SCALE_RANGE", "(0.5, 1)"]
    )
    assert cfg.DATASETS.TEST == ("a", "b")
    assert cfg.DATALOADER.DATASET_BS == [2, 8]
    assert cfg.INPUT.SCALE_RANGE == (0.5, 1)


def test_one_value_stands_for_a_list_of_one(tmp_path: Path) -> None:
    """POMP's own defaults are ``TRAIN_CLASSIFIERS ''`` and ``TRAIN_NUM_CLASSES 1203``, where a list is read here."""
    file = tmp_path / "pomp.yaml"
    file.write_text("MODEL:\n  RESET_CLS_TRAIN: True\n  TRAIN_CLASSIFIERS: a.npy\n  TRAIN_NUM_CLASSES: 1203\n")
    cfg = load_config(file, ["SOLVER.STEPS", "60000", "INPUT.MIN_SIZE_TRAIN", "800"])
    assert (cfg.MODEL.TRAIN_CLASSIFIERS, cfg.MODEL.TRAIN_NUM_CLASSES) == (["a.npy"], [1203])
    assert (cfg.SOLVER.STEPS, cfg.INPUT.MIN_SIZE_TRAIN) == ((60000,), (800,))
    file.write_text("MODEL:\n  TRAIN_CLASSIFIERS: ''\nDATASETS:\n  TEST: ''\n")
    assert (load_config(file).MODEL.TRAIN_CLASSIFIERS, load_config(file).DATASETS.TEST) == ([], ())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["DATALOADER.DATASET_BS", "True"], "DATASET_BS is True .*list"),
        (["MODEL.VOCABULARRY", "x"], "unknown key 'MODEL.VOCABULARRY'.*'MODEL.VOCABULARY'"),
        (["MODEL.ROI_BOX_HEADS.NORM_TEMP", "5"], "unknown key .*'MODEL.ROI_BOX_HEAD.NORM_TEMP'"),
        (["MODEL.FPN", "5"], "is a section"),
        (["FP16", "5"], "FP16 is 5 .*bool"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "many"], "NUM_CLASSES is 'many'.*int"),
        (["FP16"], "has no value"),
        ("FP16 True", "a sequence of KEY VALUE pairs"),
    ],
)
def test_mistakes_in_overrides(overrides: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, overrides)


def test_mistakes_in_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.yaml does not exist"):
        load_config(tmp_path / "absent.yaml")
    file = tmp_path / "wrong.yaml"
    file.write_text("MODEL:\n  CENTERNETT:\n    NORM: GN\n")
    with pytest.raises(UserError, match=r"unknown key 'MODEL.CENTERNETT.NORM' in .*wrong.yaml.*'MODEL.CENTERNET.NORM'"):
        load_config(file)
    file.write_text("_BASE_: absent_base.yaml\n")
    with pytest.raises(UserError, match=r"wrong.yaml cannot be read"):
        load_config(file)
    file.write_text("MODEL: [1\n")
    with pytest.raises(UserError, match=r"wrong.yaml cannot be read"):
        load_config(file)


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    file, proof = tmp_path / "hostile.yaml", tmp_path / "proof"
    file.write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{proof}']\n")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(file)
    assert not proof.exists()


def test_what_detectron2_cannot_build_is_one_line() -> None:
    cfg = load_config(None, TINY | {"MODEL.DEVICE": "cpu", "MODEL.RESNETS.NORM": "9" * 5000})
    with pytest.raises(UserError, match=r"no model can be built from this configuration \(KeyError: '999") as error:
        build_detector(cfg)
    assert len(str(error.value)) < 500
