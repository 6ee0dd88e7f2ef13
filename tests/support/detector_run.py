"""A folder with a tiny data set and a tiny detector's configuration, for tests of whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .detector import TINY, write_config

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 5, "name": "toy car"}, {"id": 9, "name": "dining table"}]


def make_data(folder: Path, count: int = 6) -> Path:
    """Photos of 64 x 48 with one or two boxes and polygons each; returns the annotation file."""
    random = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        images.append({"id": number, "width": 64, "height": 48, "file_name": f"{number}.png"})
        for which in range(1 + number % 2):
            x, y, w, h = 4 + 20 * which, 6 + number, 24, 20
            category = CATEGORIES[(number + which) % 3]["id"]
            pixels[y : y + h, x : x + w] = 40 * (number % 3 + 1)
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            instance = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": [polygon]}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category, **instance})
        Image.fromarray(pixels).save(folder / f"{number}.png")
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    path = folder / "boxes.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def tiny_settings(folder: Path, **changed: Any) -> dict[str, Any]:
    """Settings of a run of 6 iterations on :func:`make_data`, evaluated on the same photos."""
    return (
        TINY
        | {
            "MODEL.DEVICE": "cpu",
            "MODEL.RESNETS.NORM": "FrozenBN",  # a process may have one image in a batch
            "MODEL.ROI_HEADS.NUM_CLASSES": 3,
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
            "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
            "INPUT.FORMAT": "RGB",
            "INPUT.CUSTOM_AUG": "EfficientDetResizeCrop",
            "INPUT.TRAIN_SIZE": 64,
            "INPUT.MIN_SIZE_TEST": 64,
            "INPUT.MAX_SIZE_TEST": 100,
            "DATASETS.FILES": [["tiny", str(folder / "boxes.json"), str(folder)]],
            "DATASETS.TRAIN": ["tiny"],
            "DATASETS.TEST": ["tiny"],
            "DATALOADER.NUM_WORKERS": 0,
            "SOLVER.USE_CUSTOM_SOLVER": True,
            "SOLVER.OPTIMIZER": "ADAMW",
            "SOLVER.BASE_LR": 0.001,
            "SOLVER.IMS_PER_BATCH": 2,
            "SOLVER.MAX_ITER": 6,
            "SOLVER.WARMUP_ITERS": 2,
            "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
            "SOLVER.CHECKPOINT_PERIOD": 1000,
            "SOLVER.RESUME_PERIOD": 3,
            "OUTPUT_DIR": str(folder / "run"),
            "SEED": 4,
        }
        | changed
    )


def make_config(folder: Path, **changed: Any) -> Path:
    """The configuration file of :func:`tiny_settings`."""
    return write_config(folder / "tiny.yaml", tiny_settings(folder, **changed))
