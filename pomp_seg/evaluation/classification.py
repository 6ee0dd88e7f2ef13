"""Accuracy of a classifier of regions, for the tuning of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from pomp_seg.data.registration import check_labels, registered_metadata
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import run_description, write_metrics
from prompt_core.files import make_output_folder, sha256_of_json


class RegionClassificationEvaluator(DatasetEvaluator):
    """Counts correct predictions by class; the main process adds up the counts of all ranks.

    Numbers in percent: ``accuracy`` of all regions, ``mean_class_accuracy``, and where the data set has a split
    ``accuracy-seen`` and ``accuracy-unseen``, the accuracies of the regions of these classes.

    Args:
        dataset: a registered data set with one class per record (``…_classification``).
        folder: for ``metrics.json``; shared by all ranks.
        run: the ``_run`` entry of ``metrics.json``.

    Raises:
        UserError: for an unknown data set, before any inference.
    """

    def __init__(self, dataset: str, folder: str | Path, run: Mapping[str, Any] | None = None) -> None:
        metadata = registered_metadata(dataset)
        self._dataset, self._folder, self._run = dataset, Path(folder), run
        self._classes = list(metadata.stuff_classes)
        self._seen = (metadata.get("evaluation_set") or {}).get("base")
        self._vocabulary = metadata.vocabulary.sha256
        self._records = {self._key(record): int(record["category_id"]) for record in check_labels(dataset)}
        self._right: dict[str, bool] = {}

    def reset(self) -> None:
        """Begin anew."""
        self._right = {}

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Compare the best class of each region with its true one.

        Args:
            inputs: with ``image_id`` and ``category_id``.
            outputs: with ``classification``, logits (1, C).
        """
        for source, output in zip(inputs, outputs, strict=True):
            logits = output["classification"]
            if logits.shape[-1] != len(self._classes):
                raise UserError(
                    f"the model has {logits.shape[-1]} classes, data set {self._dataset!r} has {len(self._classes)}"
                )
            self._right[self._key(source)] = int(logits.argmax()) == int(source["category_id"])

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Numbers on the main process, None on the others.

        Raises:
            UserError: when regions of the data set were not classified.
        """
        gathered = comm.gather(self._right)
        if not comm.is_main_process():
            return None
        right: dict[str, bool] = {}
        for part in gathered:
            right |= part
        if len(right) != len(self._records):
            raise UserError(f"{len(self._records) - len(right)} regions of {self._dataset!r} were not classified")
        numbers = self._numbers(right)
        protocol = {
            "split": self._dataset,
            "metric": "accuracy of regions",
            "scorer": "pomp_seg",
            "classes": len(self._classes),
            "regions": len(right),
            "annotations_sha256": sha256_of_json(dict(sorted(self._records.items()))),
            "vocabulary_sha256": self._vocabulary,
        }
        flat = {f"{self._dataset}/{name}": value for name, value in numbers.items()}
        make_output_folder(self._folder)
        write_metrics(self._folder / "metrics.json", flat, self._run or run_description(), {self._dataset: protocol})
        return {"classification": numbers}

    def _numbers(self, right: Mapping[str, bool]) -> dict[str, float]:
        keys = sorted(right)
        hits = np.array([right[key] for key in keys])
        classes = np.array([self._records[key] for key in keys])
        of_class = [hits[classes == number].mean() for number in np.unique(classes)]
        numbers = {"accuracy": hits.mean(), "mean_class_accuracy": np.mean(of_class)}
        if self._seen is not None:
            inside = np.isin(classes, list(self._seen))
            for name, chosen in (("seen", inside), ("unseen", ~inside)):
                if chosen.any():
                    numbers[f"accuracy-{name}"] = hits[chosen].mean()
        return {name: 100 * float(value) for name, value in numbers.items()}

    @staticmethod
    def _key(record: Mapping[str, Any]) -> str:
        return f"{record['image_id']}/{record['category_id']}"
