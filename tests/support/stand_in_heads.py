"""A tiny detector and tiny segmenters on the stand-in for a GPU: a whole run, and what it then sees in a photo."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from pomp_det import load_config as detector_config
from pomp_det.predictor import OpenVocabularyPredictor
from pomp_det.task import detection_task
from pomp_engine import loop
from pomp_engine.evaluation import flat_metrics
from pomp_engine.run import train
from pomp_engine.task import Task
from pomp_seg import load_config as segmenter_config
from pomp_seg.predictor import OpenVocabularySegmenter
from pomp_seg.task import segmentation_task

from . import detector_run, segmenter_run
from .stand_in_both import Waits, counted, note, on_both
from .stand_in_device import NAME, StandIn

FEDERATED = {
    "WITH_IMAGE_LABELS": True,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CAT": 4,
}
PER_PIXEL = {
    "MODEL.META_ARCHITECTURE": "ZeroShotPerPixelModel",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 116,
    "MODEL.SEM_SEG_HEAD.NAME": "ZeroPerPixelBaselineHead",
}
SHORT = {"SOLVER.MAX_ITER": 2, "SOLVER.WARMUP_ITERS": 0}
PHOTO = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def detector() -> Waits:
    """A federated loss over boxes, a step of image labels, detections of a photo."""
    return on_both(_detector)


def segmenter() -> Waits:
    """Mask proposals and CLIP's look at the regions."""
    return on_both(partial(_segmenter, {}))


def per_pixel() -> Waits:
    """A class for each pixel."""
    return on_both(partial(_segmenter, PER_PIXEL))


def _detector(device: str, waits: Waits) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        detector_run.make_data(folder, 2)
        counts = [{"id": row, "image_count": 5 + row, "frequency": "f"} for row in range(3)]
        (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
        files = {"MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(folder / "counts.json"), "MODEL.DEVICE": device}
        cfg = detector_config(None, detector_run.tiny_settings(folder, **FEDERATED, **SHORT, **files))
        results, cfg = _run(detection_task(), cfg, device, waits)
        predictor = OpenVocabularyPredictor.load(cfg)
        with counted(device, waits, "photo"):
            found = predictor(PHOTO)
        results |= {"boxes": found.pred_boxes.tensor, "scores": found.scores, "masks": found.pred_masks}
        nothing = Instances((48, 64), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))
        image = torch.from_numpy(PHOTO.transpose(2, 0, 1).copy())
        example = {"image": image, "instances": nothing, "ann_type": "image", "pos_category_ids": [0, 2]}
        torch.manual_seed(1)
        with EventStorage(0), counted(device, waits, "image labels"):
            losses = predictor.model.train()([example, example])
            sum(losses.values()).backward()
        learned = predictor.model.named_parameters()
        gradients = {f"gradient of {name}": value.grad for name, value in learned if value.grad is not None}
        return results | losses | gradients


def _segmenter(changed: dict[str, Any], device: str, waits: Waits) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with patch.object(segmenter_run, "TEST", 1):
            segmenter_run.make_data(folder)
        settings = segmenter_run.tiny_settings(folder, **changed, **SHORT, **{"MODEL.DEVICE": device})
        results, cfg = _run(segmentation_task(), segmenter_config(None, settings), device, waits)
        predictor = OpenVocabularySegmenter.load(cfg)
        predictor.set_vocabulary(["cat", "sky", "boat"])
        with counted(device, waits, "photo"):
            found = predictor(PHOTO)
        return results | {"labels": torch.from_numpy(found.labels), "scores": torch.from_numpy(found.scores)}


def _run(task: Task, cfg: CfgNode, device: str, waits: Waits) -> tuple[dict[str, Any], CfgNode]:
    """Train, save, evaluate; the numbers, and the configuration with what was learned."""
    begin = loop.seed_iteration

    def begins(seed: int, iteration: int) -> None:
        if device == NAME and iteration == 0:
            StandIn.now.waits.clear()
        elif device == NAME:
            note(waits, "step")
        begin(seed, iteration)

    try:
        with patch.object(loop, "seed_iteration", begins):
            numbers = flat_metrics(train(task, cfg))
        weights = Path(cfg.OUTPUT_DIR, "model_final.pth")
        log = [json.loads(line) for line in Path(cfg.OUTPUT_DIR, "log.jsonl").read_text().splitlines()]
    finally:
        segmenter_run.unregister()
    learned = torch.load(weights, weights_only=True)["model"]
    losses = {name: value for name, value in log[-1].items() if "loss" in name or "/" in name}
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(weights)
    return {**numbers, **learned, **losses}, cfg
