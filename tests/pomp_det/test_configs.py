"""The project's own detection files: every key is known, and each means what the published file of that run means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from pomp_det import build_detector, load_config
from pomp_engine.config import flatten
from pomp_seg.config import is_segmenter

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PUBLISHED = {
    "base_coco": "Base_OVCOCO_C4_1x",
    "lvis_boxes": "BoxSup-C2_L_CLIP_R5021k_640b64_4x",
    "lvis_boxes_pomp": "BoxSup-C2_L_CLIP_R5021k_640b64_4x_pomp",
    "lvis_base_boxes": "BoxSup-C2_Lbase_CLIP_R5021k_640b64_4x",
    "lvis_base_boxes_pomp": "BoxSup-C2_Lbase_CLIP_R5021k_640b64_4x_pomp",
    "lvis_images": "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size",
    "lvis_images_pomp": "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp",
    "lvis_base_images": "Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_max-size",
    "lvis_base_images_pomp": "Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp",
    "cross_dataset_pomp": "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp_cross_datasets",
    "coco_boxes": "BoxSup_OVCOCO_CLIP_R50_1x",
    "coco_boxes_pomp": "BoxSup_OVCOCO_CLIP_R50_1x_pomp",
    "coco_captions_pomp": "Detic_OVCOCO_CLIP_R50_1x_max-size_caption_pomp",
}
FIRST_STAGE = {
    "lvis_images": "lvis_boxes",
    "lvis_images_pomp": "lvis_boxes_pomp",
    "lvis_base_images": "lvis_base_boxes",
    "lvis_base_images_pomp": "lvis_base_boxes_pomp",
    "lvis_base_images_vitb16": "lvis_base_boxes_vitb16",
    "cross_dataset_pomp": "lvis_images_pomp",
    "coco_captions_pomp": "coco_boxes_pomp",
}


def meaning(file: Path) -> dict[str, Any]:
    """All settings but where results go and come from."""
    return {key: value for key, value in flatten(load_config(file)) if key not in ("OUTPUT_DIR", "MODEL.WEIGHTS")}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_means_what_the_published_file_means(published: Path, name: str) -> None:
    assert meaning(CONFIGS / f"detection/{name}.yaml") == meaning(published / f"{PUBLISHED[name]}.yaml")


@pytest.mark.parametrize("file", sorted((CONFIGS / "detection").glob("*.yaml")), ids=lambda file: file.stem)
def test_loads_and_starts_from_its_first_stage(file: Path) -> None:
    cfg = load_config(file)
    assert f"runs/detection/{file.stem}" == cfg.OUTPUT_DIR
    if file.stem in FIRST_STAGE:
        first = load_config(file.parent / f"{FIRST_STAGE[file.stem]}.yaml")
        assert f"{first.OUTPUT_DIR}/model_final.pth" == cfg.MODEL.WEIGHTS
        # A second stage goes on with the classifier of the first.
        assert cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH == first.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH


def test_the_open_vocabulary_run_of_the_paper() -> None:
    assert meaning(CONFIGS / "lvis_pomp.yaml") == meaning(CONFIGS / "detection/lvis_base_images_pomp.yaml")
    cfg = load_config(CONFIGS / "lvis_pomp.yaml")
    assert cfg.DATASETS.TRAIN == ("lvis_v1_train_norare", "imagenet_lvis_v1")


SMALL = sorted(file for file in (CONFIGS / "mini").glob("*.yaml") if not is_segmenter(file) and file.stem != "prompt")


@pytest.mark.parametrize("file", SMALL, ids=lambda file: file.stem)
def test_small_configurations_build(file: Path) -> None:
    cfg = load_config(file, {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": "rand", "MODEL.DEVICE": "cpu"})
    cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS = False  # its class counts come with the data
    cfg.MODEL.ROI_BOX_HEAD.HELD_OUT_FREQUENCIES = ""
    model = build_detector(cfg)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained < 8e6
