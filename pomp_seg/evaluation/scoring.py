"""Numbers of a segmentation run: from its confusion matrix, and again at any time from the predicted label maps.

::

    FOLDER/predictions/manifest.json   data set, classes, images; "complete" says that all processes were done
    FOLDER/predictions/KEY.png         class index of each pixel, in the size of the photo

A label map has 8 bits for at most 255 classes, else 16. Nothing is kept in memory, whatever the number of images.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from pomp_engine.evaluation import flat_metrics
from pomp_seg.data.label_maps import check_label_values, read_label_map
from pomp_seg.evaluation.metrics import (
    ClassScores,
    check_denominator,
    class_scores,
    confusion_matrix,
    segmentation_metrics,
)
from prompt_core.data.photo_files import inside
from prompt_core.documents.schema import Count, check
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import run_description, write_metrics
from prompt_core.files import (
    atomic_path,
    make_output_folder,
    read_sealed_json,
    sha256_of_file,
    sha256_of_json,
    write_sealed_json,
)

SUBFOLDER = "predictions"
MANIFEST = "manifest.json"


class Manifest(msgspec.Struct):
    """What scoring needs in addition to the label maps."""

    dataset: str
    complete: bool
    classes: Annotated[list[str], msgspec.Meta(min_length=1, max_length=65_535)]
    ignore_label: Count
    evaluation_set: dict[str, list[Count]]
    images: dict[str, str]
    vocabulary_sha256: str | None = None


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Numbers of one data set.

    Attributes:
        dataset: its name.
        results: ``{"sem_seg": {"mIoU": …}}`` in percent, as Detectron2's evaluators return; NaN is undefined.
        protocol: the ``_protocol`` entry.
        confusion: (C + 1, C + 1), see :func:`pomp_seg.evaluation.metrics.confusion_matrix`.
    """

    dataset: str
    results: dict[str, dict[str, float]]
    protocol: dict[str, Any]
    confusion: np.ndarray

    def flat(self) -> dict[str, float]:
        """``{"voc_sem_seg_test/mIoU": …}``, without undefined numbers."""
        return flat_metrics({self.dataset: self.results})


def prediction_file(folder: Path, key: str) -> Path:
    """Path of the prediction of an image."""
    return folder / SUBFOLDER / f"{key}.png"


def clear_predictions(folder: Path) -> None:
    """Remove the predictions of an earlier run.

    Raises:
        UserError: when the folder cannot be created or written.
    """
    place = make_output_folder(folder / SUBFOLDER)
    for path in [place / MANIFEST, *place.glob("*.png")]:
        path.unlink(missing_ok=True)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write what scoring needs in addition to the label maps."""
    write_sealed_json(folder / SUBFOLDER / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what :func:`write_manifest` wrote.

    Raises:
        UserError: when the folder holds no predictions, or those of an interrupted run.
    """
    path = folder / SUBFOLDER / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} holds no predictions: {path} does not exist; run the evaluation with inference")
    manifest: dict[str, Any] = read_sealed_json(path)
    try:
        check(manifest, Manifest, path)
    except UserError as error:
        raise UserError(f"{error}; {path} does not describe predictions, run the evaluation with inference") from error
    for key in manifest["images"]:
        inside(key, str(path))
    if not manifest["complete"]:
        raise UserError(f"{folder / SUBFOLDER} is unfinished: the run was interrupted; run the inference again")
    return manifest


def score_predictions(
    folder: str | Path,
    *,
    labels: Mapping[str, str | Path] | None = None,
    denominator: str = "ground_truth",
    run: Mapping[str, Any] | None = None,
) -> Scores:
    """Score the label maps in a folder without inference, and write ``metrics.json`` and the other result files there.

    Args:
        folder: what a :class:`~pomp_seg.evaluation.evaluator.SegmentationEvaluator` wrote.
        labels: ``{key: label file}`` of other ground truth with the same classes; default the run's own.
        denominator: of mIoU, see :mod:`pomp_seg.evaluation.metrics`.
        run: the ``_run`` entry of ``metrics.json``; default a description of this process.

    Raises:
        UserError: when predictions or labels are absent, damaged, of different sizes or of other classes.
    """
    folder = Path(folder)
    check_denominator(denominator)
    manifest = read_manifest(folder)
    files: Mapping[str, Any] = labels if labels is not None else manifest["images"]
    if set(files) != set(manifest["images"]):
        odd = sorted(set(files) ^ set(manifest["images"]))
        raise UserError(
            f"{len(odd)} images have a label or a prediction in {folder} but not both, the first is {odd[0]}"
        )
    count, ignore_label = len(manifest["classes"]), int(manifest["ignore_label"])
    total = count_files(folder, files, count, ignore_label)
    digests = {key: sha256_of_file(files[key]) for key in sorted(files)}
    return write_scores(folder, total, digests, manifest, denominator, run)


def count_files(folder: Path, labels: Mapping[str, str | Path], num_classes: int, ignore_label: int) -> np.ndarray:
    """The confusion matrix (C + 1, C + 1) of the predictions in a folder, for ``{key: label file}``.

    Raises:
        UserError: as :func:`count_image`, and for a missing or damaged prediction.
    """
    total = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for key in sorted(labels):
        path = prediction_file(folder, key)
        total += count_image(read_label_map(path), path, Path(labels[key]), num_classes, ignore_label)
    return total


def count_image(
    prediction: np.ndarray, where: str | Path, label: Path, num_classes: int, ignore_label: int
) -> np.ndarray:
    """The confusion matrix of one image, (C + 1, C + 1).

    Args:
        prediction: (H, W) class indices.
        where: source of the prediction, for messages.
        label: file of the true classes.

    Raises:
        UserError: a missing or damaged label, one of another size or with values outside the classes; with the file.
    """
    truth = read_label_map(label)
    check_label_values(truth, label, num_classes, ignore_label)
    if prediction.shape != truth.shape:
        raise UserError(
            f"label file {label} is {truth.shape[1]} x {truth.shape[0]} pixels (width x height), the prediction "
            f"{where} {prediction.shape[1]} x {prediction.shape[0]}; photo and label must have the same size"
        )
    if prediction.size and int(prediction.max()) >= num_classes:
        raise UserError(
            f"prediction {where} has class {int(prediction.max())} of more than the {num_classes} classes of the data "
            "set; give the model that data set's vocabulary"
        )
    return confusion_matrix(prediction, truth, num_classes, ignore_label)


def write_scores(
    folder: Path,
    confusion: np.ndarray,
    label_digests: Mapping[str, str],
    manifest: Mapping[str, Any],
    denominator: str,
    run: Mapping[str, Any] | None,
) -> Scores:
    """Numbers of a confusion matrix, and the files ``metrics.json``, ``per_class.json`` and ``confusion.npy``.

    Args:
        confusion: (C + 1, C + 1).
        label_digests: ``{key: sha256 of the label file}`` of every image.
    """
    dataset = str(manifest["dataset"])
    numbers = segmentation_metrics(confusion, manifest["evaluation_set"], denominator)
    protocol = {
        "split": dataset,
        "metric": "mIoU",
        "miou_denominator": denominator,
        "scorer": "pomp_seg confusion matrix",
        "classes": len(manifest["classes"]),
        "ignore_label": manifest["ignore_label"],
        "evaluation_set": {name: len(classes) for name, classes in manifest["evaluation_set"].items()},
        "images": len(label_digests),
        "annotations_sha256": sha256_of_json(dict(label_digests)),
        "vocabulary_sha256": manifest.get("vocabulary_sha256"),
    }
    result = Scores(dataset, {"sem_seg": numbers}, protocol, confusion)
    with atomic_path(folder / "confusion.npy") as temporary:
        np.save(temporary, confusion)
    _write_classes(folder, result, manifest)
    write_metrics(folder / "metrics.json", result.flat(), run or run_description(), {dataset: protocol})
    _log(result, denominator)
    return result


def _write_classes(folder: Path, scores: Scores, manifest: Mapping[str, Any]) -> None:
    numbers: ClassScores = class_scores(scores.confusion)
    seen = manifest["evaluation_set"].get("base")
    rows = []
    for index, name in enumerate(manifest["classes"]):
        row: dict[str, Any] = {"id": index, "name": name}
        if seen is not None:
            row["seen"] = index in seen
        for key, values in (("IoU", numbers.iou), ("ACC", numbers.accuracy)):
            row[key] = 100.0 * float(values[index]) if math.isfinite(values[index]) else None
        row["pixels"], row["predicted_pixels"] = int(numbers.ground_truth[index]), int(numbers.predicted[index])
        rows.append(row)
    write_sealed_json(folder / "per_class.json", {"dataset": scores.dataset, "metric": "IoU", "classes": rows})


def _log(scores: Scores, denominator: str) -> None:
    from detectron2.utils.logger import create_small_table

    table = create_small_table(dict(scores.results["sem_seg"]))
    _logger.info("%s, mIoU over classes of %s:\n%s", scores.dataset, denominator.replace("_", " "), table)
