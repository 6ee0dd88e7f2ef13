"""Detectron2's evaluator interface over predicted label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from pomp_seg.data.label_maps import write_label_map
from pomp_seg.data.registration import check_labels, registered_metadata
from pomp_seg.evaluation.metrics import check_denominator
from pomp_seg.evaluation.scoring import (
    SUBFOLDER,
    clear_predictions,
    count_files,
    count_image,
    prediction_file,
    write_manifest,
    write_scores,
)
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_file


class SegmentationEvaluator(DatasetEvaluator):
    """Streams label maps to disk and counts confusions on every rank; the main process adds the matrices.

    Args:
        dataset: name of a registered data set with semantic labels.
        folder: for label maps, ``metrics.json``, ``per_class.json``, ``confusion.npy``; shared by all ranks.
        denominator: of mIoU, see :mod:`pomp_seg.evaluation.metrics`.
        run: the ``_run`` entry of ``metrics.json``.

    Raises:
        UserError: for unknown names, missing labels or photos, before any inference.
    """

    def __init__(
        self,
        dataset: str,
        folder: str | Path,
        *,
        denominator: str = "ground_truth",
        run: Mapping[str, Any] | None = None,
    ) -> None:
        check_denominator(denominator)
        metadata = registered_metadata(dataset)
        # Sets of one record for each class name an image more than once.
        self._labels = {str(record["image_id"]): str(record["sem_seg_file_name"]) for record in check_labels(dataset)}
        self._folder, self._denominator, self._run = Path(folder), denominator, run
        self._ignore_label = int(metadata.ignore_label)
        self._manifest: dict[str, Any] = {
            "dataset": dataset,
            "complete": False,
            "classes": list(metadata.stuff_classes),
            "ignore_label": self._ignore_label,
            "evaluation_set": {name: list(ids) for name, ids in (metadata.get("evaluation_set") or {}).items()},
            "vocabulary_sha256": metadata.vocabulary.sha256,
            "images": {key: str(Path(path).absolute()) for key, path in sorted(self._labels.items())},
        }
        self._confusion: np.ndarray | None = None
        self._done: dict[str, str] = {}

    def reset(self) -> None:
        """Start over; the main process removes the files of an earlier run."""
        if comm.is_main_process():
            clear_predictions(self._folder)
            write_manifest(self._folder, self._manifest)
        comm.synchronize()
        side = len(self._manifest["classes"]) + 1
        self._confusion, self._done = np.zeros((side, side), dtype=np.int64), {}

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Write and count the predictions of a batch. A repeated image is ignored.

        Args:
            inputs: dictionaries with ``image_id``.
            outputs: dictionaries with ``sem_seg`` in the size of the photo: scores (C, H, W), or class indices (H, W).

        Raises:
            UserError: an image that is not of the data set, a class beyond its classes, a missing or damaged label, one
                of another size or with values outside the classes.
        """
        assert self._confusion is not None, "reset() comes first"
        count = len(self._manifest["classes"])
        for source, output in zip(inputs, outputs, strict=True):
            key = str(source.get("image_id"))
            if key not in self._labels:
                raise UserError(f"image {key!r} is not of data set {self._manifest['dataset']!r}; give its own records")
            if key in self._done:
                continue
            prediction = label_map(output["sem_seg"])
            path, label = prediction_file(self._folder, key), Path(self._labels[key])
            self._confusion += count_image(prediction, path, label, count, self._ignore_label)
            write_label_map(path, prediction, count)
            self._done[key] = sha256_of_file(label)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Numbers on the main process: ``{"sem_seg": {"mIoU": …}}`` in percent; None on the other ranks.

        Raises:
            UserError: when images of the data set were not predicted.
        """
        assert self._confusion is not None, "reset() comes first"
        gathered = comm.gather((self._confusion, self._done))
        if not comm.is_main_process():
            return None
        digests: dict[str, str] = {}
        for _, done in gathered:
            digests |= done
        missing = sorted(set(self._labels) - set(digests))
        if missing:
            raise UserError(
                f"{len(missing)} of {len(self._labels)} images of {self._manifest['dataset']!r} have no prediction in "
                f"{self._folder / SUBFOLDER}, the first is {missing[0]}; run the inference on the whole set"
            )
        total = sum((confusion for confusion, _ in gathered), np.zeros_like(self._confusion))
        if sum(len(done) for _, done in gathered) > len(digests):  # a sampler that gave an image to two ranks
            total = count_files(self._folder, self._labels, len(self._manifest["classes"]), self._ignore_label)
        write_manifest(self._folder, {**self._manifest, "complete": True})
        ordered = dict(sorted(digests.items()))
        manifest = self._manifest
        return write_scores(self._folder, total, ordered, manifest, self._denominator, self._run).results


def label_map(prediction: torch.Tensor) -> np.ndarray:
    """Class indices (H, W) int64 of scores (C, H, W) or of class indices (H, W)."""
    labels = prediction.argmax(dim=0) if prediction.dim() == 3 else prediction
    array: np.ndarray = labels.to("cpu", torch.int64).numpy()
    return array
