"""No key of a detector is silently ignored: each is read, or refused where it is set to something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, ShapeSpec
from torch import nn

from pomp_det import build_detector, load_config
from pomp_det.class_matrix import classifier_of_names
from pomp_det.config import add_detic_config
from pomp_det.data.evaluation_mapper import evaluation_resize
from pomp_det.data.loader import images_per_batch
from pomp_det.data.mapper import MixedDatasetMapper, augmentations_of_config
from pomp_det.published_keys import UNBUILT
from pomp_det.task import detection_task
from pomp_engine import run
from pomp_engine.config import flatten, refuse_unsupported, value_of
from pomp_engine.run_folder import weights_to_evaluate
from pomp_engine.solver import build_optimizer, build_scheduler
from prompt_core import TextClassifier, UserError

from ..support.config_keys import recorded_reads
from ..support.detector import TINY
from ..support.detector_run import CATEGORIES, make_data, tiny_settings
from ..support.region_words import region_words_settings

CPU = {"MODEL.DEVICE": "cpu"}
# Keys that published files change, and that change nothing in the published code either.
WITHOUT_EFFECT = {
    "VERSION": "of Detectron2's format of configurations",
    "MODEL.CENTERNET.NUM_CLASSES": "proposals have no class",
    "MODEL.ROI_BOX_HEAD.EQL_FREQ_CAT": "only with USE_EQL_LOSS, which is refused",
    "MODEL.ANCHOR_GENERATOR.ANGLES": "of Detectron2's generator of rotated anchors",
    "SOLVER.NUM_DECAYS": "of Detectron2's schedule of that name",
}


def whole_run(folder: Path) -> CfgNode:
    """Boxes and image labels, a checkpoint and an evaluation amid the training, other classes for both ends."""
    make_data(folder, count=2)
    TextClassifier(torch.randn(3, 24), [category["name"] for category in CATEGORIES], {}).save(folder / "c.safetensors")
    photos = json.loads((folder / "boxes.json").read_text())["images"]
    labelled = [image | {"pos_category_ids": [3]} for image in photos]
    (folder / "labels.json").write_text(json.dumps({"images": labelled, "annotations": [], "categories": CATEGORIES}))
    counts = [{"id": category["id"], "image_count": 1, "frequency": "f"} for category in CATEGORIES]
    (folder / "counts.json").write_text(json.dumps(counts))
    labels = ["tiny_labels", str(folder / "labels.json"), str(folder), "image_labels"]
    changed = {
        "WITH_IMAGE_LABELS": True,
        "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True,
        "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(folder / "counts.json"),
        "MODEL.RESET_CLS_TRAIN": True,
        "MODEL.TRAIN_CLASSIFIERS": [str(folder / "c.safetensors")],
        "MODEL.RESET_CLS_TESTS": True,
        "MODEL.TEST_CLASSIFIERS": [str(folder / "c.safetensors")],
        "MODEL.TEST_NUM_CLASSES": [3],
        "DATASETS.FILES": [["tiny", str(folder / "boxes.json"), str(folder)], labels],
        "DATASETS.TRAIN": ["tiny", "tiny_labels"],
        "DATALOADER.SAMPLER_TRAIN": "MultiDatasetSampler",
        "DATALOADER.MULTI_DATASET_GROUPING": True,
        "DATALOADER.USE_RFS": [True, True],
        "DATALOADER.REPEAT_THRESHOLD": 0.5,
        "DATALOADER.USE_DIFF_BS_SIZE": True,
        "DATALOADER.DATASET_BS": [2, 2],
        "DATALOADER.DATASET_INPUT_SIZE": [64, 32],
        "DATALOADER.DATASET_ANN": ["box", "image"],
        "SOLVER.MAX_ITER": 2,
        "TEST.EVAL_PERIOD": 1,
    }
    return load_config(None, tiny_settings(folder) | changed)


def parts(folder: Path) -> dict[str, CfgNode]:
    """Settings that other parts than those of the run read."""
    heads = "MODEL.ROI_BOX_HEAD."
    zero_shot = {f"{heads}USE_ZEROSHOT_CLS": True, f"{heads}CLS_AGNOSTIC_BBOX_REG": True}
    c4 = CPU | {"MODEL.META_ARCHITECTURE": "CustomRCNN", "MODEL.ROI_HEADS.NAME": "CustomRes5ROIHeads"}
    rand = zero_shot | {f"{heads}ZEROSHOT_WEIGHT_PATH": "rand"}
    captions = {"MODEL.WITH_CAPTION": True, f"{heads}ADD_IMAGE_BOX": True, "MODEL.SYNC_CAPTION_BATCH": True}
    distilled = {f"{heads}DISTILLATION_WEIGHT": 0.5}
    two_heads = {
        "MODEL.ROI_HEADS.NAME": "ViLDEnsembleROIHeads",
        f"{heads}LEARNED_BACKGROUND": True,
        f"{heads}USE_SIGMOID_CE": False,
    }
    words = {"MODEL.VOCABULARY": "cat,dog", "MODEL.PROMPT": "a {}.", "MODEL.CLIP.NAME": "mini"}
    return {
        "rpn": load_config(None, c4 | {"MODEL.MASK_ON": True}),
        "captions": load_config(None, c4 | rand | captions),
        "distilled": load_config(None, c4 | rand | distilled),
        "two heads": load_config(None, TINY | CPU | two_heads),
        "hierarchy": load_config(None, TINY | CPU | {f"{heads}HIERARCHY_IGNORE": True}),
        "dynamic": load_config(None, c4 | rand | {"MODEL.DYNAMIC_CLASSIFIER": True}),
        "words": load_config(None, c4 | zero_shot | words | {f"{heads}ZEROSHOT_WEIGHT_DIM": 116}),
        "region words": load_config(None, region_words_settings(folder)),
        "learned words": load_config(None, {"MODEL.ROI_HEADS.NAME": "RegionWordsROIHeads", "MODEL.CLIP.NAME": "mini"}),
        "plain": load_config(None, {"DATASETS.TRAIN": ["x"], "MODEL.RANDOM_WEIGHTS": True}),
        "crops": load_config(None, {"DATASETS.TRAIN": ["x"], "INPUT.CUSTOM_AUG": "EfficientDetResizeCrop"}),
        "by shortest edge": load_config(
            None,
            {
                "DATASETS.TRAIN": ["x"],
                "INPUT.CUSTOM_AUG": "ResizeShortestEdge",
                "DATALOADER.USE_DIFF_BS_SIZE": True,
                "DATALOADER.USE_TAR_DATASET": True,
                "DATALOADER.TARFILE_PATH": str(folder / "absent.npy"),
            },
        ),
        "square": load_config(None, {"INPUT.TEST_INPUT_TYPE": "square"}),
        "sgd": load_config(None, {"SOLVER.CLIP_GRADIENTS.ENABLED": True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm"}),
        "adamw": load_config(None, {"SOLVER.USE_CUSTOM_SOLVER": True, "SOLVER.CUSTOM_MULTIPLIER_NAME": ["weight"]}),
        "backbones": load_config(None, CPU | {"MODEL.TIMM.PRETRAINED": True}),
    }


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The keys that a training with tests, other heads, augmentations, optimisers and backbones read."""
    folder = tmp_path_factory.mktemp("keys")
    training, others = whole_run(folder), parts(folder)
    with pytest.MonkeyPatch.context() as patch, recorded_reads(training, *others.values()) as keys:
        run.train(detection_task(), training)
        for name in ("efficientnet_lite", "timm", "swintransformer"):
            BACKBONE_REGISTRY.get(f"build_{name}_backbone")(others["backbones"], ShapeSpec(channels=3))
        # Drawing the weights takes most of the time.
        patch.setattr(torch.Tensor, "normal_", lambda self, *arguments, **options: self)
        patch.setattr(torch.Tensor, "uniform_", lambda self, *arguments, **options: self)
        for name in ("rpn", "captions", "distilled", "two heads", "hierarchy", "dynamic", "words", "region words"):
            build_detector(others[name])
        classifier_of_names(others["learned words"], "cat", "mini")
        for name in ("plain", "crops", "by shortest edge"):
            augmentations_of_config(others[name])
        images_per_batch(others["plain"], 1)
        weights_to_evaluate(others["plain"])
        with pytest.raises(UserError, match=r"absent.npy does not exist"):
            MixedDatasetMapper(others["by shortest edge"], True)
        evaluation_resize(others["square"])
        for name in ("sgd", "adamw"):
            optimizer = build_optimizer(others[name], nn.Linear(1, 1))
            build_scheduler(others[name], optimizer)
            optimizer.step()
    yield keys
    for name in ("tiny", "tiny_labels"):
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def test_every_key_is_read_or_refused(read: set[str]) -> None:
    """Those of Detectron2 too."""
    assert {key for key, _ in flatten(load_config(None, CPU))} - read == set(WITHOUT_EFFECT)


def test_published_files_set_nothing_that_is_refused(shared: Path) -> None:
    files = sorted((shared / "data/published_configs/detic_all").glob("*.yaml"))
    assert len(files) == 38
    for file in files:
        if "DeformDETR" not in file.name:
            refuse_unsupported(load_config(file, CPU), add_detic_config, UNBUILT)


@pytest.mark.parametrize("key", sorted(UNBUILT))
def test_a_detector_refuses_what_is_not_built(key: str) -> None:
    section = value_of(load_config(None, CPU), key)
    name, value = next(iter(flatten(section, f"{key}."))) if isinstance(section, CfgNode) else (key, section)
    other: dict[type, Any] = {
        bool: lambda old: not old,
        int: lambda old: old + 1,
        float: lambda old: old + 0.5,
        str: lambda old: f"other {old}",
        list: lambda old: [*old, 1],
        tuple: lambda old: (*old, "1"),
    }
    changed = other[type(value)](value)
    with pytest.raises(UserError) as caught:
        build_detector(load_config(None, CPU | {name: changed}))
    assert str(caught.value).startswith(f"{name} is {changed!r}, which is not built: ")
    assert "\n" not in str(caught.value)
