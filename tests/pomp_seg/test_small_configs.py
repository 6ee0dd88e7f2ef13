"""The small segmentation files: each builds with the embedded CLIP, and stages and data sets fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2")

from pomp_seg import build_segmenter, load_config
from pomp_seg.data.catalog import segmentation_entry
from pomp_seg.data.label_sets import label_set
from pomp_seg.names import is_segmenter
from prompt_core.prompt import SoftPrompt

FOLDER = Path(__file__).resolve().parents[2] / "configs/mini"
FILES = sorted(file for file in FOLDER.glob("*.yaml") if is_segmenter(file))
CPU = {"MODEL.DEVICE": "cpu"}


def test_all_are_looked_at() -> None:
    assert {
        "coco_seg",
        "coco_seg_pomp",
        "coco_seg_pomp_tuned",
        "coco_seg_prompt",
        "cross_dataset_seg",
        "scenes_seg",
    } <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_builds_with_sets_of_as_many_classes(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load_config(file, CPU)
    checkpoint = cfg.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT
    if checkpoint:
        context = torch.zeros(cfg.MODEL.CLIP_ADAPTER.PROMPT_SHAPE[0], 116)
        Path(checkpoint).parent.mkdir(parents=True)
        if checkpoint.endswith(".safetensors"):
            SoftPrompt(context).save(checkpoint)
        else:
            torch.save({"model": {"clip_adapter.prompt_learner.ctx": context}}, checkpoint)
    model = build_segmenter(cfg)
    assert model.clip_adapter.clip.name == "mini"
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        entry = segmentation_entry(name)
        if name in cfg.DATASETS.TRAIN and "MaskFormer" in cfg.MODEL.META_ARCHITECTURE and not entry.classes_in_file:
            assert len(label_set(entry.label_set)) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES


def test_stages_hand_on_what_the_next_one_reads() -> None:
    tuning, tuned = (load_config(FOLDER / f"{name}.yaml", CPU) for name in ("coco_seg_prompt", "coco_seg_pomp_tuned"))
    assert f"{tuning.OUTPUT_DIR}/model_final.pth" == tuned.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT
    assert tuned.MODEL.CLIP_ADAPTER.PROMPT_SHAPE == tuning.MODEL.CLIP_ADAPTER.PROMPT_SHAPE
    source, cross = (load_config(FOLDER / f"{name}.yaml", CPU) for name in ("coco_seg", "cross_dataset_seg"))
    assert f"{source.OUTPUT_DIR}/model_final.pth" == cross.MODEL.WEIGHTS
    # Only the test sets and the weights differ: another vocabulary needs nothing else.
    for cfg in (source, cross):
        cfg.DATASETS.TEST, cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = (), "", ""
    assert source.dump() == cross.dump()
