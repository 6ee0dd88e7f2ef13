"""Bad input of a segmenter's run is named in one line: before any training, or where it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog

from pomp_engine import loop, run
from pomp_seg import load_config
from pomp_seg.data.registration import register_configured
from pomp_seg.task import segmentation_task
from pomp_seg.vocabulary import batch_classes
from prompt_core import UserError

from ..support.segmenter_run import (
    NAMES,
    change_label,
    label,
    make_config,
    make_data,
    save_segmenter,
    tiny_settings,
    unregister,
)

LEARNER = "MODEL.CLIP_ADAPTER.PROMPT_LEARNER"
PER_PIXEL = {
    "MODEL.META_ARCHITECTURE": "ZeroShotPerPixelModel",
    "MODEL.SEM_SEG_HEAD.NAME": "ZeroPerPixelBaselineHead",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 116,
}
CLOSED = {"MODEL.META_ARCHITECTURE": "MaskFormer", "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    make_data(tmp_path)
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    yield tmp_path
    unregister()


@pytest.fixture
def refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs with bad input, which has to be reported before the training starts."""

    def no_training(*arguments: Any, **options: Any) -> None:
        raise AssertionError("training began")

    def refuse(message: str, stage: int = 2, **changed: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "train", no_training)
            with pytest.raises(UserError, match=message) as error:
                run.train(segmentation_task(), load_config(None, tiny_settings(folder, stage, **changed)))
        assert "\n" not in str(error.value)

    return refuse


def test_training_is_what_the_fixture_stops(folder: Path, refused: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="training began"):
        refused("never")


def test_files_that_are_missing(folder: Path, refused: Callable[..., None]) -> None:
    label(folder, 2).unlink()
    refused(r"1 of 6 photos have no label file below .*train_base, the first is .*train/2.png; add the label files")
    refused(r"lists 1 label files that are not in .*train_base, the first is 2", 1)
    (folder / "shapes/scenes/train/2.png").unlink()
    label(folder, 1, "val").unlink()
    (folder / "shapes/scenes/val/1.png").unlink()
    (folder / "shapes/scenes/val/3.png").unlink()
    # A test set is looked at before the training too.
    refused(r"data set 'tiny': 1 of 4 labels have no photo below .*scenes/val, the first is .*val/3.png")


def test_numbers_and_names_of_classes(folder: Path, refused: Callable[..., None]) -> None:
    refused(
        r"data set 'tiny_train' has 3 classes, MODEL.SEM_SEG_HEAD.NUM_CLASSES is 5; set both alike",
        **{"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 5},
    )
    refused(r"the segmenter was built for 3 classes, data set 'tiny' has 4; an open vocabulary needs", **CLOSED)
    rows = tiny_settings(folder)["DATASETS.FILES"]
    both = {"DATASETS.FILES": [[*rows[0][:3], str(folder / "all.txt")], rows[1]], "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4}
    words = ",".join(["cat", "sky", "boat", "traffic light"])
    refused(
        r"class 2 is 'boat' in MODEL.VOCABULARY and 'traffic light' in data set 'tiny_train'; leave",
        **both,
        **{"MODEL.VOCABULARY": words},
    )
    refused(
        r"MODEL.VOCABULARY has 3 classes, data set 'tiny' has 4; leave it empty",
        **{"MODEL.VOCABULARY": ",".join(NAMES[:3])},
    )
    refused(
        r"data set 'tiny' has other classes or another ignored value than 'tiny_train'",
        **{"DATASETS.TRAIN": ["tiny_train", "tiny"]},
    )


def test_labels_of_unseen_classes_are_no_training(folder: Path, refused: Callable[..., None]) -> None:
    """A list of seen classes steers the ensemble and the report; it does not take labels away."""
    row = tiny_settings(folder)["DATASETS.FILES"][1]
    refused(
        r"training set 'tiny' has a file of seen classes that leaves some out, and labels of all",
        **{"DATASETS.FILES": [row], "DATASETS.TRAIN": ["tiny"], "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4},
    )


def test_options_of_a_test_that_cannot_be(folder: Path, refused: Callable[..., None]) -> None:
    refused(r"SOLVER.TEST_IMS_PER_BATCH is 0; expected 1 or more", **{"SOLVER.TEST_IMS_PER_BATCH": 0})
    refused(r"ORACLE is True, but ZeroShotPerPixelModel cannot name given regions", ORACLE=True, **PER_PIXEL)


def test_names_that_are_misspelt(folder: Path, refused: Callable[..., None]) -> None:
    refused(r"data set 'tiny_trian' is not registered; nearest: 'tiny_train'", **{"DATASETS.TRAIN": ["tiny_trian"]})
    refused(r"data set 'tinny' is not registered; nearest: 'tiny'", **{"DATASETS.TEST": ["tinny"]})
    refused(r"DATASETS.TRAIN is empty", **{"DATASETS.TRAIN": []})
    refused(
        r"denominator of mIoU is 'unoin'; expected ground_truth or union; nearest: 'union'",
        **{"TEST.MIOU_DENOMINATOR": "unoin"},
    )
    refused(
        r"INPUT.DATASET_MAPPER_NAME is 'mask_former_sematic'; expected .*nearest: 'mask_former_semantic'",
        **{"INPUT.DATASET_MAPPER_NAME": "mask_former_sematic"},
    )
    refused(r"DATASETS.FILES has the row \['tiny', 'labels'\]; expected", **{"DATASETS.FILES": [["tiny", "labels"]]})


def test_the_parts_of_the_other_stage(folder: Path, refused: Callable[..., None]) -> None:
    mapper = "INPUT.DATASET_MAPPER_NAME"
    refused(
        r"MAPPER_NAME is 'mask_former_semantic'; ProposalClipClassifier needs mask_former_binary_semantic",
        1,
        **{mapper: "mask_former_semantic"},
    )
    refused(
        r"MAPPER_NAME is 'mask_former_binary_semantic'; ZeroShotMaskFormer needs mask_former_semantic",
        **{mapper: "mask_former_binary_semantic"},
    )
    settings = tiny_settings(folder)
    refused(
        r"data set 'tiny_train' has whole label maps; prompt tuning needs one of …_classification",
        1,
        **{key: settings[key] for key in ("DATASETS.FILES", "DATASETS.TRAIN")},
    )
    refused(r"nothing of ProposalClipClassifier learns with PROMPT_LEARNER 'predefined'", 1, **{LEARNER: "predefined"})


def test_the_ignored_value_of_pixels(folder: Path, refused: Callable[..., None]) -> None:
    ignored = {"MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 254}
    refused(r"data set 'tiny_train' ignores the label value 255, .*IGNORE_VALUE is 254; set it to 255",
            **PER_PIXEL, **ignored)  # fmt: skip


def test_own_files_follow_the_data_root(folder: Path) -> None:
    files = ("shapes/semantic/val", "shapes/scenes/val", "all.txt", "seen.txt")
    row = ["tiny", *(f"datasets/{file}" for file in files)]
    register_configured(load_config(None, {"DATASETS.FILES": [row]}))
    assert len(DatasetCatalog.get("tiny")) == 5


@pytest.fixture
def last_error(call_tool: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the training tool, which has to end with code 2: the last line of its errors."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the tool hides the GPUs from what follows

    def call(*arguments: str) -> str:
        code, _, errors = call_tool("train_net", "--num-gpus", "0", *arguments)
        assert code == 2
        return str(errors.strip().splitlines()[-1])

    return call


@pytest.mark.parametrize(("stage", "mistake", "workers"), [(1, "value", 0), (1, "size", 2), (2, "value", 2),
                                                           (2, "size", 0)])  # fmt: skip
def test_labels_that_do_not_fit_are_reported_where_they_are_read(
    folder: Path, last_error: Callable[..., str], workers: int, stage: int, mistake: str
) -> None:
    if mistake == "value":
        change_label(label(folder, 3), 7)
        message = "has the value 7; expected 0..2, or 255 for pixels to ignore"
    else:
        Image.fromarray(np.zeros((48, 60), np.uint8)).save(label(folder, 3))
        message = f"is 60 x 48 pixels (width x height), its photo {folder}/shapes/scenes/train/3.png 64 x 48"
    config = make_config(folder, stage, **{"DATALOADER.NUM_WORKERS": workers, "DATASETS.SAMPLE_PER_CLASS": -1})
    last = last_error("--config", str(config))
    assert last.startswith(f"error: label file {label(folder, 3)} {message}")
    assert "Traceback" not in last
    assert not (folder / "run/model_final.pth").exists()


def test_a_training_without_memory_ends_in_one_line(
    folder: Path, last_error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*arguments: Any, **more: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 480000 bytes. Code 12")

    monkeypatch.setattr("pomp_seg.losses.MaskProposalLoss.forward", no_memory)
    last = last_error("--config", str(make_config(folder)))
    assert last.startswith("error: out of memory (RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried")
    assert not list((folder / "run").glob("model_*"))


@pytest.mark.parametrize(("mistake", "workers"), [("value", 2), ("size", 0), ("photo", 2), ("photo", 0)])
def test_test_data_that_does_not_fit(folder: Path, last_error: Callable[..., str], workers: int, mistake: str) -> None:
    if mistake == "value":
        change_label(label(folder, 3, "val"), 7)
        message = f"error: label file {label(folder, 3, 'val')} has the value 7; expected 0..3, or 255"
    elif mistake == "size":
        Image.fromarray(np.zeros((48, 60), np.uint8)).save(label(folder, 3, "val"))
        message = f"error: label file {label(folder, 3, 'val')} is 60 x 48 pixels (width x height), the prediction"
    else:
        photo = folder / "shapes/scenes/val/3.png"
        photo.write_bytes(photo.read_bytes()[:200])
        message = f"error: cannot read image {photo}: "
    weights = save_segmenter(folder, load_config(None, tiny_settings(folder)))
    config = make_config(folder, **{"DATALOADER.NUM_WORKERS": workers})
    last = last_error("--config", str(config), "--eval-only", "MODEL.WEIGHTS", str(weights))
    assert last.startswith(message)
    assert "Traceback" not in last
    assert not (folder / "run/metrics.json").exists()


def test_classes_of_a_batch_of_two_data_sets(folder: Path) -> None:
    row = tiny_settings(folder)["DATASETS.FILES"][1]
    rows = {"DATASETS.FILES": [row, ["tiny_train", *row[1:4]]]}
    register_configured(load_config(None, tiny_settings(folder, **rows)))
    batch = [{"meta": {"dataset_name": name}} for name in ("tiny", "tiny_train")]
    assert batch_classes(batch[:1], None).seen == (True, True, True, False)
    both = batch_classes(batch, None)
    assert (both.names, both.seen) == (tuple(NAMES), None)
    register_configured(load_config(None, tiny_settings(folder)))
    with pytest.raises(UserError, match="mixes the data sets tiny, tiny_train, whose classes differ"):
        batch_classes(batch, None)


def test_crops_for_a_tower_that_takes_squares_only(folder: Path, make_tiny_clip: Callable[..., Any]) -> None:
    """Published files tune on crops of 224 x 244, which a vision transformer for 224 x 224 cannot take as they are."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    document = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    (folder / "square.json").write_text(json.dumps(document), encoding="utf-8")
    torch.save(make_tiny_clip(layers=1).model.state_dict(), folder / "square.pt")
    changed = {
        "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME": str(folder / "square.json"),
        "MODEL.CLIP_ADAPTER.CLIP_PRETRAINED": str(folder / "square.pt"),
        "MODEL.CLIP_ADAPTER.PROMPT_DIM": 32,
        "INPUT.MIN_SIZE_TRAIN": (32, 44),
        "INPUT.MIN_SIZE_TEST": 40,
        "SOLVER.MAX_ITER": 2,
    }
    results = run.train(segmentation_task(), load_config(None, tiny_settings(folder, 1, **changed)))
    assert 0 <= results["shapes_sem_seg_val_classification"]["classification"]["accuracy"] <= 100
    assert (folder / "run/model_final.pth").is_file()
