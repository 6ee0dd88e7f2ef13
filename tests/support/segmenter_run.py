"""A folder with tiny data sets and the configurations of tiny segmenters, for tests of whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from .segmenter import TINY

NAMES = ["cat", "sky", "traffic light", "boat"]  # the last one is unseen
COLOURS = np.array([[200, 40, 40], [40, 90, 220], [60, 200, 60], [220, 220, 60]], np.uint8)
SIZE = (48, 64)  # height, width
TRAIN, TEST = 6, 5  # photos


def make_data(root: Path) -> None:
    """A data root with generated scenes: photos, labels of the seen classes to train on, labels of all to test on."""
    shapes = root / "shapes"
    generator = np.random.default_rng(0)
    for split, count, folder in (("train", TRAIN, "train_base"), ("val", TEST, "val")):
        counts = {}
        for place in (f"scenes/{split}", f"semantic/{folder}"):
            (shapes / place).mkdir(parents=True)
        for number in range(count):
            labels = np.full(SIZE, 255, np.uint8)
            for which in range(2 + number % 2):
                upper, left = generator.integers(0, 20), 20 * which
                labels[upper : upper + 24, left : left + 20] = (number + which) % (3 if split == "train" else 4)
            photo = generator.integers(0, 60, (*SIZE, 3), dtype=np.uint8)
            photo[labels < 255] += COLOURS[labels[labels < 255]] // 2
            Image.fromarray(photo).save(shapes / f"scenes/{split}/{number}.png")
            Image.fromarray(labels).save(shapes / f"semantic/{folder}/{number}.png")
            counts[f"{number}.png"] = [int(value) for value in np.unique(labels) if value < 255]
        (shapes / f"semantic/{folder}_label_count.json").write_text(json.dumps(counts), encoding="utf-8")
    document = {"names": NAMES, "unseen": NAMES[3:]}
    (shapes / "semantic_classes.json").write_text(json.dumps(document), encoding="utf-8")
    for name, names in (("all", NAMES), ("seen", NAMES[:3])):
        (root / f"{name}.txt").write_text("".join(f"{class_name}\n" for class_name in names), encoding="utf-8")


def label(root: Path, number: int, split: str = "train_base") -> Path:
    """A label image of :func:`make_data`."""
    return root / f"shapes/semantic/{split}/{number}.png"


def change_label(path: Path, value: int) -> None:
    """Give the pixels of the upper left corner another value."""
    labels = np.asarray(Image.open(path)).copy()
    labels[:5, :5] = value
    Image.fromarray(labels).save(path)


def check_pixels(name: str) -> list[dict[str, Any]]:
    """The records of a data set; each label map is opened, and has to fit its photo and the classes."""
    from pomp_engine.data.tar_images import image_size
    from pomp_seg.data.label_maps import read_record_labels
    from pomp_seg.data.registration import check_labels, registered_metadata

    metadata, records = registered_metadata(name), check_labels(name)
    for record in {record["sem_seg_file_name"]: record for record in records}.values():
        width, height = image_size(record["file_name"])
        read_record_labels(record, (height, width), len(metadata.stuff_classes), metadata.ignore_label)
    return records


def tiny_settings(root: Path, stage: int = 2, **changed: Any) -> dict[str, Any]:
    """Settings of a run of 6 iterations on :func:`make_data`, tested on the scenes that it does not train on.

    Args:
        stage: 1 tunes a prompt on the known data sets of generated scenes, with ``POMP_DATA`` at ``root``; 2 trains a
            segmenter on ``DATASETS.FILES``, with a prompt that learns too.
    """
    shapes = root / "shapes"
    common = {
        "MODEL.CLIP_ADAPTER.PROMPT_LEARNER": "learnable",
        "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT": 0.5,
        "INPUT.FORMAT": "RGB",
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.BASE_LR": 0.001,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 6,
        "SOLVER.WARMUP_ITERS": 2,
        "SOLVER.LR_SCHEDULER_NAME": "WarmupPolyLR",
        "SOLVER.CHECKPOINT_PERIOD": 1000,
        "SOLVER.RESUME_PERIOD": 3,
        "OUTPUT_DIR": str(root / "run"),
        "SEED": 4,
    }
    if stage == 1:
        options = {
            "MODEL.META_ARCHITECTURE": "ProposalClipClassifier",
            "INPUT.DATASET_MAPPER_NAME": "mask_former_binary_semantic",
            "INPUT.MIN_SIZE_TRAIN": (48, 52),
            "INPUT.MIN_SIZE_TEST": 48,
            "DATASETS.TRAIN": ["shapes_base_sem_seg_train_classification"],
            "DATASETS.TEST": ["shapes_sem_seg_val_classification"],
            "DATASETS.SAMPLE_PER_CLASS": 3,
        }
    else:
        seen, every = str(root / "seen.txt"), str(root / "all.txt")
        train, test = ([str(shapes / f"semantic/{name}"), str(shapes / f"scenes/{split}")]
                       for name, split in (("train_base", "train"), ("val", "val")))  # fmt: skip
        options = {
            "INPUT.MIN_SIZE_TRAIN": (40, 48),
            "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
            "INPUT.MIN_SIZE_TEST": 48,
            "INPUT.CROP.ENABLED": True,
            "INPUT.CROP.TYPE": "absolute",
            "INPUT.CROP.SIZE": (40, 40),
            "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 0.8,
            "INPUT.COLOR_AUG_SSD": True,
            "INPUT.SIZE_DIVISIBILITY": 64,
            "DATASETS.FILES": [["tiny_train", *train, seen], ["tiny", *test, every, seen]],
            "DATASETS.TRAIN": ["tiny_train"],
            "DATASETS.TEST": ["tiny"],
        }
    return TINY | common | options | changed


def make_config(root: Path, stage: int = 2, **changed: Any) -> Path:
    """The configuration file of :func:`tiny_settings`."""
    nested: dict[str, Any] = {}
    for key, value in tiny_settings(root, stage, **changed).items():
        node = nested
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = list(value) if isinstance(value, tuple) else value
    path = root / f"stage{stage}.yaml"
    path.write_text(yaml.safe_dump(nested), encoding="utf-8")
    return path


def save_segmenter(root: Path, cfg: Any) -> Path:
    """Random weights of a configuration, scaled up so that a photo gets several classes; and their file."""
    import torch

    from pomp_seg import build_segmenter

    torch.manual_seed(2)
    state = build_segmenter(cfg).state_dict()
    for key, value in state.items():
        if key.endswith("weight") and any(part in key for part in ("mask_embed", "class_embed", "query_embed")):
            state[key] = 10 * value
    torch.save({"model": state}, root / "segmenter.pth")
    return root / "segmenter.pth"


def unregister() -> None:
    """Forget the data sets of :func:`tiny_settings`."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for name in ("tiny_train", "tiny"):
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
