"""Scoring of prediction files: after inference, and again at any time without it."""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pomp_det.data.annotation_files import read_scored_annotations
from pomp_det.evaluation.backends import complete_annotations, score, scorer_version
from pomp_det.evaluation.metrics import class_average_precision, detection_metrics
from pomp_det.evaluation.openimages_scores import score_openimages
from pomp_det.evaluation.prediction_files import PredictionIndex, read_manifest, write_results
from pomp_det.evaluation.protocol import Protocol, check_backend, top_of_class, top_of_image
from pomp_engine.data.derived_files import write_compact_json
from pomp_engine.evaluation import flat_metrics
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import run_description, write_metrics
from prompt_core.files import atomic_path, sha256_of_file, write_sealed_json
from prompt_core.temporary_files import temporary_folder

TASKS = {"bbox": "box", "segm": "mask"}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Numbers of one data set.

    Attributes:
        dataset: its name.
        results: ``{"bbox": {"AP": …}, "segm": {…}}`` in percent, as Detectron2's evaluators return; NaN is undefined.
        protocol: the ``_protocol`` entry.
        classes: ``{"bbox": (C,), "segm": (C,)}`` AP of each class in percent.
        precision: the array behind each task, (10, 101, C, 4); Open Images' number has none.
    """

    dataset: str
    results: dict[str, dict[str, float]]
    protocol: dict[str, Any]
    classes: dict[str, np.ndarray]
    precision: dict[str, np.ndarray]

    def flat(self) -> dict[str, float]:
        """``{"lvis_v1_val/mask_APr": …}``, without undefined numbers."""
        return flat_metrics({self.dataset: self.results}, TASKS)


def score_predictions(
    folder: str | Path,
    *,
    annotations: str | Path | None = None,
    backend: str = "hotcoco",
    fixed_ap: bool = False,
    detections: int | None = None,
    masks_without_ground_truth: str = "evaluate",
    allow_missing: bool = False,
    run: Mapping[str, Any] | None = None,
) -> Scores:
    """Score the predictions in a folder and write ``metrics.json``, ``per_class.json`` and the COCO results file there.

    Args:
        folder: what a :class:`~pomp_det.evaluation.evaluator.DetectionEvaluator` wrote.
        annotations: ground truth; default the file that the predictions were made for.
        backend: ``hotcoco`` or ``reference`` (lvis-api, pycocotools).
        fixed_ap: LVIS's Fixed AP instead of 300 detections of an image.
        detections: another cap than the protocol's 300 (LVIS) or 100 (COCO).
        masks_without_ground_truth: see :class:`Protocol`.
        allow_missing: score although images of the annotations have no predictions; they count as empty.
        run: the ``_run`` entry of ``metrics.json``; default a description of this process.

    Raises:
        UserError: when predictions are absent, unfinished, or not of these annotations, or an option is unknown.
    """
    folder = Path(folder)
    check_backend(backend)
    manifest = read_manifest(folder)
    truth = Path(annotations or manifest["annotations"])
    protocol = Protocol(
        manifest["dataset"],
        manifest["kind"],
        detections,
        fixed_ap,
        masks_without_ground_truth,
        manifest.get("class_groups", {}),
    )
    document = read_scored_annotations(truth, federated=protocol.kind == "lvis")
    index = PredictionIndex(folder)
    _check_coverage(truth, document, index, allow_missing)
    without_mask = sum(not annotation.get("segmentation") for annotation in document["annotations"])
    name = f"{protocol.kind}_instances_results.json"
    with atomic_path(folder / name) as temporary:
        total = write_results(temporary, (instance for _, instance in _instances(index)))
    if not total:
        _logger.warning("%s: there is no detection at all", folder)
    categories = sorted(document["categories"], key=lambda category: category["id"])
    tasks = _tasks(manifest, protocol, without_mask, len(document["annotations"]))
    if protocol.kind == "openimages":
        results, classes = score_openimages(truth, document, lambda: _scored(index, "bbox", protocol, None))
        arrays: dict[str, np.ndarray] = {}
        _log(protocol, "bbox", results["bbox"])
    else:
        del document
        results, classes, arrays = _score_tasks(
            folder, truth, index, tasks, protocol, backend, categories, without_mask
        )
    facts = {
        "scorer": scorer_version(protocol, backend),
        "annotations": truth.name,
        "annotations_sha256": sha256_of_file(truth),
        "vocabulary_sha256": manifest.get("vocabulary_sha256"),
        "images": len(index),
        "total_detections": total,
        "model_detections_per_image": manifest.get("detections_per_image"),
        "annotations_without_mask": without_mask,
    }
    result = Scores(protocol.dataset, results, protocol.describe(**facts), classes, arrays)
    _warn_of_capped_model(protocol, manifest)
    write_metrics(folder / "metrics.json", result.flat(), run or run_description(), {result.dataset: result.protocol})
    _write_classes(folder, result, categories)
    return result


def _check_coverage(truth: Path, document: Mapping[str, Any], index: PredictionIndex, allow_missing: bool) -> None:
    wanted = np.array([image["id"] for image in document["images"]], dtype=np.int64)
    strange = np.setdiff1d(index.image_ids, wanted)
    if len(strange):
        raise UserError(f"{len(strange)} predicted images are not in {truth}, the first is {strange[0]}")
    missing = np.setdiff1d(wanted, index.image_ids)
    if len(missing) and not allow_missing:
        raise UserError(
            f"{len(missing)} of {len(wanted)} images of {truth} have no predictions, the first is {missing[0]}; "
            "run the inference on the whole set"
        )


def _tasks(manifest: Mapping[str, Any], protocol: Protocol, without_mask: int, annotations: int) -> list[str]:
    tasks = [task for task in TASKS if task in manifest["tasks"]]
    if "segm" in tasks and annotations and without_mask == annotations:
        if protocol.masks_without_ground_truth == "skip":
            _logger.info("%s has no masks: mask metrics are left out", protocol.dataset)
            tasks.remove("segm")
        else:
            _logger.warning("%s has no masks: every predicted mask counts as wrong", protocol.dataset)
    return tasks


def _score_tasks(
    folder: Path,
    truth: Path,
    index: PredictionIndex,
    tasks: Sequence[str],
    protocol: Protocol,
    backend: str,
    categories: Sequence[Mapping[str, Any]],
    without_mask: int,
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray], dict[str, np.ndarray]]:
    results, classes, arrays = {}, {}, {}
    position = {category["id"]: place for place, category in enumerate(categories)}
    frequencies = None
    if protocol.kind == "lvis":
        frequencies = {
            letter: [place for place, category in enumerate(categories) if category["frequency"] == letter]
            for letter in "rcf"
        }
    groups = {
        name: [position[category] for category in ids if category in position]
        for name, ids in protocol.class_groups.items()
    }
    chosen = _fixed_ap_choice(index) if protocol.fixed_ap else None
    for task in tasks:
        with temporary_folder(folder / "scoring") as scratch:
            path = scratch / f"{task}.json"
            write_results(path, _scored(index, task, protocol, chosen))
            seen = truth
            if task == "segm" and without_mask:
                seen = scratch / "annotations.json"
                write_compact_json(seen, complete_annotations(truth))
            precision = score(seen, path, task, protocol, backend)
        results[task] = detection_metrics(precision, frequencies, groups)
        classes[task] = class_average_precision(precision)
        arrays[task] = precision
        _log(protocol, task, results[task])
    return results, classes, arrays


def _instances(index: PredictionIndex) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for image_id, instances in index:
        for instance in instances:
            yield number, {"image_id": image_id, **instance}
            number += 1


def _fixed_ap_choice(index: PredictionIndex) -> np.ndarray:
    # Plain arrays hold tens of millions of detections in 16 bytes each; a list of pairs needs eight times that.
    categories, scores = array("q"), array("d")
    for _, instance in _instances(index):
        categories.append(instance["category_id"])
        scores.append(instance["score"])
    return top_of_class(np.array(categories, dtype=np.int64), np.array(scores, dtype=np.float64))


def _scored(
    index: PredictionIndex, task: str, protocol: Protocol, chosen: np.ndarray | None
) -> Iterator[dict[str, Any]]:
    """What the scorer sees: caps of an image are applied here, COCO's inside the scorer; a mask result has no box.

    With a box and a mask, lvis-api takes the area of the box for small, medium and large.
    """
    shape = "bbox" if task == "bbox" else "segmentation"
    number = 0
    for image_id, instances in index:
        scored = instances
        if chosen is not None:
            scored = [instance for place, instance in enumerate(instances, start=number) if chosen[place]]
            number += len(instances)
        elif protocol.kind != "coco":
            assert protocol.detections is not None
            scored = top_of_image(instances, protocol.detections)
        for instance in scored:
            if shape not in instance:
                raise UserError(f"the predictions for image {image_id} have no {shape!r}; leave the task {task!r} out")
            yield {
                "image_id": image_id,
                "category_id": instance["category_id"],
                shape: instance[shape],
                "score": instance["score"],
            }


def _warn_of_capped_model(protocol: Protocol, manifest: Mapping[str, Any]) -> None:
    limit = manifest.get("detections_per_image")
    if protocol.fixed_ap and limit is not None:
        _logger.warning(
            "Fixed AP of predictions that the model already cut to %s an image; raise TEST.DETECTIONS_PER_IMAGE", limit
        )


def _write_classes(folder: Path, scores: Scores, categories: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for place, category in enumerate(categories):
        row = {key: category[key] for key in ("id", "name", "frequency") if key in category}
        for task, values in scores.classes.items():
            row[f"{TASKS[task]}_AP"] = float(values[place]) if math.isfinite(values[place]) else None
        rows.append(row)
    write_sealed_json(
        folder / "per_class.json", {"dataset": scores.dataset, "metric": scores.protocol["metric"], "classes": rows}
    )


def _log(protocol: Protocol, task: str, numbers: Mapping[str, float]) -> None:
    from detectron2.utils.logger import create_small_table

    _logger.info(
        "%s, %s, %s, %s:\n%s",
        protocol.dataset,
        TASKS[task],
        protocol.variant,
        protocol.detections_text,
        create_small_table(dict(numbers)),
    )
