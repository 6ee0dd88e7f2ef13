"""What the embedded detector finds in photos that it did not learn from: the numbers of its card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pomp_det import load_config
from pomp_det.data.registration import registered_metadata
from pomp_det.predictor import OpenVocabularyPredictor
from pomp_det.task import detection_task
from pomp_engine import run
from pomp_lab.mini_detector.reliability import matched, reliability
from pomp_lab.runs import Document
from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError
from prompt_core.files import read_json, write_json
from prompt_core.vocabulary import Vocabulary

VOC = "voc_2007_val"
WORDS = "imagenet1k"
PHOTOS = "imagenet_samples"


def scored(config: str | Path, settings: Mapping[str, Any]) -> Document:
    """Numbers of ``DATASETS.TEST`` by the evaluation of any detector, as ``metrics.json`` has them.

    Under ``_reliability`` is the precision of detections by their score (:mod:`pomp_lab.mini_detector.reliability`).

    Raises:
        UserError: absent data or weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(config, {**settings, "OUTPUT_DIR": folder})
        run.evaluate(detection_task(), cfg, cfg.MODEL.WEIGHTS)
        numbers: Document = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
        reliable = {name: _reliability(Path(folder) / f"inference_{name}", name) for name in cfg.DATASETS.TEST}
    kept = {key: value for key, value in numbers.items() if key not in ("_run", "_sha256")}
    return {**kept, "_reliability": reliable}


def _reliability(folder: Path, dataset: str) -> dict[str, Any]:
    """Precision by score of the predictions that an evaluation left in a folder."""
    found = json.loads((folder / "coco_instances_results.json").read_text(encoding="utf-8"))
    truth = read_json(Path(registered_metadata(dataset).json_file))["annotations"]
    return reliability(*matched(found, truth))


def voc_scores(config: str | Path, settings: Mapping[str, Any], root: Path) -> Document:
    """Numbers of the validation photos of VOC 2007, whose difficult boxes count as crowds: neither found nor missed.

    Args:
        root: with ``annotations/boxes_val.json`` and ``val2007``.

    Raises:
        UserError: absent data or weights.
    """
    document = with_crowds(read_json(root / "annotations" / "boxes_val.json"))
    with tempfile.TemporaryDirectory() as folder:
        boxes = Path(folder) / "boxes_val.json"
        write_json(boxes, document)
        sets = {"DATASETS.FILES": [[VOC, str(boxes), str(root / "val2007")]], "DATASETS.TEST": [VOC]}
        no_masks = {"MODEL.MASK_ON": False}  # the photos have none to compare with
        words = ",".join(category["name"] for category in document["categories"])
        return scored(config, {**settings, **sets, **no_masks, "MODEL.VOCABULARY": words})


def with_crowds(document: dict[str, Any]) -> dict[str, Any]:
    """A COCO document whose boxes with ``ignore`` are ``iscrowd``."""
    annotations = [
        {**row, "iscrowd": int(bool(row.get("ignore") or row["iscrowd"]))} for row in document["annotations"]
    ]
    return {**document, "annotations": annotations}


def best_box_words(
    config: str | Path,
    settings: Mapping[str, Any],
    images: ImageSet,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Document:
    """How often the best box of a photo of one thing has that thing's word among the 1,000 of ImageNet.

    Args:
        images: whose class ids are wnids of ImageNet-1K.
        progress: called with (done, total).

    Returns:
        in percent ``top1`` and ``photos without a box``, which count as wrong; classes that share a name are one.

    Raises:
        UserError: a class that is not in ImageNet-1K, or a photo that cannot be read.
    """
    words = Vocabulary.load(WORDS)
    names = dict(zip(words.ids or [], words.names, strict=True))
    if unknown := [identity for identity in images.ids if identity not in names]:
        raise UserError(f"{images.source}: class {unknown[0]!r} is not in ImageNet-1K; expected wnids of its classes")
    cfg = load_config(config, {**settings, "TEST.DETECTIONS_PER_IMAGE": 1})
    predictor = OpenVocabularyPredictor.load(cfg, WORDS)
    scores: list[float] = []
    right: list[bool] = []
    for number, label in enumerate(images.labels):
        found = predictor.detect(np.asarray(images.read(number).convert("RGB")))
        if len(found):
            word = predictor.class_names[int(found.pred_classes[0])]
            scores.append(float(found.scores[0]))
            right.append(word == names[images.ids[label]])
        progress(number + 1, len(images))
    count = len(images)
    return {
        f"{PHOTOS}/top1": 100 * sum(right) / count,
        f"{PHOTOS}/photos without a box": 100 * (count - len(right)) / count,
        "_reliability": {PHOTOS: reliability(np.array(scores), np.array(right, dtype=bool), count)},
        "_protocol": {PHOTOS: {"images": count, "candidates": len(words), "box": "of the highest score"}},
    }


def together(*documents: Document) -> Document:
    """One document of the numbers of several, their protocols and reliabilities."""
    apart = ("_protocol", "_reliability")
    numbers = {key: value for document in documents for key, value in document.items() if key not in apart}
    parts = {
        key: {name: value for document in documents for name, value in document.get(key, {}).items()} for key in apart
    }
    return {**numbers, **parts}
