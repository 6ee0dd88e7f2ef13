"""Two scorers of the same files: hotcoco (fast), and lvis-api or pycocotools (reference).

Each returns the precision array (10, 101, C, 4) at IoU thresholds, recalls, classes in the order of category ids, and
size ranges all, small, medium, large; -1 stands for classes without ground truth in that range.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np

from pomp_det.evaluation.protocol import Protocol
from prompt_core.errors import UserError
from prompt_core.files import read_json


def scorer_version(protocol: Protocol, backend: str) -> str:
    """Name and version of the scorer that a backend uses."""
    if protocol.kind == "openimages":
        return "pomp_det"
    package = "hotcoco" if backend == "hotcoco" else {"lvis": "lvis", "coco": "pycocotools"}[protocol.kind]
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} (absent)"


def score(annotations: Path, results: Path, task: str, protocol: Protocol, backend: str) -> np.ndarray:
    """Precision array of a COCO results file.

    Args:
        annotations: ground truth.
        results: detections, already capped by :mod:`pomp_det.evaluation.protocol`; mask results hold no boxes.
        task: ``bbox`` or ``segm``.

    Raises:
        UserError: when the scorer is not installed, or does not run with the installed NumPy; for a path whose bytes
            are no UTF-8, which compiled scorers do not take.
    """
    for path in (annotations, results):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise UserError(f"the path {path} is not UTF-8, which scorers need; choose another one") from None
    scorers = {
        ("hotcoco", "lvis"): _hotcoco_lvis,
        ("hotcoco", "coco"): _hotcoco_coco,
        ("reference", "lvis"): _lvis_api,
        ("reference", "coco"): _pycocotools,
    }
    try:
        return scorers[backend, protocol.kind](annotations, results, task, protocol)
    except ModuleNotFoundError as error:
        raise UserError(f"the scorer {error.name} is not installed; run: pip install {error.name}") from error


def _hotcoco_lvis(annotations: Path, results: Path, task: str, protocol: Protocol) -> np.ndarray:
    from hotcoco import COCO, LVISEval, LVISResults

    truth = COCO(str(annotations))
    evaluator = LVISEval(truth, LVISResults(truth, str(results), max_dets=-1), task)
    evaluator.evaluate()
    evaluator.accumulate()
    return _precision(evaluator)[..., 0]


def _hotcoco_coco(annotations: Path, results: Path, task: str, protocol: Protocol) -> np.ndarray:
    from hotcoco import COCO, COCOeval

    truth = COCO(str(annotations))
    evaluator = COCOeval(truth, truth.load_res(str(results)), task)
    assert protocol.detections is not None
    evaluator.params.max_dets = [1, 10, protocol.detections]
    evaluator.evaluate()
    evaluator.accumulate()
    return _precision(evaluator)[..., -1]


def _precision(evaluator: Any) -> np.ndarray:
    return np.asarray(evaluator.eval["precision"])


def _lvis_api(annotations: Path, results: Path, task: str, protocol: Protocol) -> np.ndarray:
    from lvis import LVIS, LVISEval, LVISResults

    if not hasattr(np, "float"):
        raise UserError(
            "lvis as published on the package index does not run with NumPy 1.24 or later; "
            "run: pip install git+https://github.com/lvis-dataset/lvis-api"
        )
    truth = _in_memory(LVIS, complete_annotations(annotations))
    detections = read_json(results)
    if detections:
        detected = LVISResults(truth, detections, max_dets=-1)
    else:  # lvis-api looks at the first detection
        detected = _in_memory(LVISResults, {**truth.dataset, "annotations": []})
    evaluator = LVISEval(truth, detected, task)
    evaluator.evaluate()
    evaluator.accumulate()
    return _precision(evaluator)


def _in_memory(kind: Any, dataset: dict[str, Any]) -> Any:
    """An object of lvis-api, which reads files only, from annotations in memory."""
    built = kind.__new__(kind)
    built.logger = logging.getLogger("lvis")
    built.dataset = dataset
    built._create_index()
    return built


def _pycocotools(annotations: Path, results: Path, task: str, protocol: Protocol) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = complete_annotations(annotations)
        truth.createIndex()
        detections = read_json(results)
        if detections:
            detected = truth.loadRes(detections)
        else:  # pycocotools looks at the first detection
            detected = COCO()
            detected.dataset = {**truth.dataset, "annotations": []}
            detected.createIndex()
        evaluator = COCOeval(truth, detected, task)
        evaluator.params.maxDets = [1, 10, protocol.detections]
        evaluator.evaluate()
        evaluator.accumulate()
    return _precision(evaluator)[..., -1]


def complete_annotations(annotations: Path) -> dict[str, Any]:
    """A file with everything that a scorer may ask for: ``info``, ``iscrowd``, ``area`` and a mask.

    An absent area is that of the box, as hotcoco has it; pycocotools and lvis-api stop. An absent mask is an empty one:
    pycocotools would stop and hotcoco would take the box for it.
    """
    document: dict[str, Any] = read_json(annotations)
    document.setdefault("info", {})
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    for annotation in document["annotations"]:
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        if not annotation.get("segmentation"):
            height, width = sizes[annotation["image_id"]]
            annotation["segmentation"] = {"size": [height, width], "counts": [height * width]}
    return document
