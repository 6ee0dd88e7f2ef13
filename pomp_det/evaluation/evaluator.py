"""Detectron2's evaluator interface over prediction files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm

from pomp_det.box_masks import BOX_MASKS, encode_masks
from pomp_det.data.registration import dataset_vocabulary, registered_metadata
from pomp_det.evaluation.prediction_files import PredictionWriter, clear_predictions, write_manifest
from pomp_det.evaluation.protocol import Protocol, check_backend
from pomp_det.evaluation.scoring import score_predictions
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary


class DetectionEvaluator(DatasetEvaluator):
    """Streams detections to disk on every rank; the main process scores the files.

    LVIS data sets are scored federated, Open Images by its own AP50, others as COCO; open-vocabulary COCO also by seen
    and unseen classes.

    Args:
        dataset: name of a registered data set with boxes.
        folder: for predictions, ``metrics.json`` and the COCO results file; shared by all ranks.
        vocabulary: the classes that the model counts by; default the data set's. Its names are what the protocol
            entry's hash is of.
        backend, fixed_ap, detections, masks_without_ground_truth: see
            :func:`~pomp_det.evaluation.scoring.score_predictions`.
        tasks: ``bbox``, ``segm`` or both; None looks at the predictions.
        detections_per_image: the model's own limit, for the record (``TEST.DETECTIONS_PER_IMAGE``).
        more_classes: the model has other classes behind those of the data set; detections of these are not scored.
        run: the ``_run`` entry of ``metrics.json``.

    Raises:
        UserError: for unknown names or options, before any inference.
    """

    def __init__(
        self,
        dataset: str,
        folder: str | Path,
        *,
        vocabulary: Vocabulary | None = None,
        backend: str = "hotcoco",
        fixed_ap: bool = False,
        detections: int | None = None,
        masks_without_ground_truth: str = "evaluate",
        tasks: Sequence[str] | None = None,
        detections_per_image: int | None = None,
        more_classes: bool = False,
        run: Mapping[str, Any] | None = None,
    ) -> None:
        check_backend(backend)
        metadata = registered_metadata(dataset)
        groups = dict(metadata.get("class_groups") or {})
        kind = metadata.get("evaluator_type", "coco")
        Protocol(dataset, kind, detections, fixed_ap, masks_without_ground_truth, groups)
        data_set = dataset_vocabulary(dataset)
        assert data_set.ids is not None
        self._category_ids = [int(category) for category in data_set.ids]
        self._more_classes = more_classes
        self._folder = Path(folder)
        self._tasks = list(tasks) if tasks is not None else None
        self._manifest = {
            "dataset": dataset,
            "kind": kind,
            "annotations": str(Path(metadata.json_file).absolute()),
            "class_groups": groups,
            "vocabulary_sha256": (vocabulary or data_set).sha256,
            "detections_per_image": detections_per_image,
        }
        self._options: dict[str, Any] = {
            "backend": backend,
            "fixed_ap": fixed_ap,
            "detections": detections,
            "masks_without_ground_truth": masks_without_ground_truth,
            "run": run,
        }
        self._writer: PredictionWriter | None = None
        self._with_masks = False

    def reset(self) -> None:
        """Start over; the main process removes the files of an earlier run."""
        if comm.is_main_process():
            clear_predictions(self._folder)
            self._write_manifest(None)
        comm.synchronize()
        self._with_masks = False
        self._writer = PredictionWriter(self._folder, comm.get_rank())

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Write the detections of a batch.

        Args:
            inputs: dictionaries with ``image_id``.
            outputs: dictionaries with ``instances``: ``pred_boxes``, ``scores``, ``pred_classes`` and, if the model has
                them, ``box_masks`` (n, M, M) on the boxes, of which one at a time is pasted into the photo, or all of
                them there as ``pred_masks`` (n, H, W).

        Raises:
            UserError: when a class index is beyond the data set's classes.
        """
        assert self._writer is not None, "reset() comes first"
        for source, output in zip(inputs, outputs, strict=True):
            instances = output["instances"]
            self._with_masks = self._with_masks or instances.has("pred_masks") or instances.has(BOX_MASKS)
            if self._more_classes:
                instances = instances[instances.pred_classes < len(self._category_ids)]
            rows = instances_to_coco_json(instances.to("cpu"), source["image_id"])
            if instances.has(BOX_MASKS):
                for row, mask in zip(rows, encode_masks(instances), strict=True):
                    row["segmentation"] = mask
            self._writer.write(source["image_id"], [self._row(row) for row in rows])

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["category_id"] >= len(self._category_ids):
            raise UserError(
                f"the model predicts class {row['category_id'] + 1} of more than the {len(self._category_ids)} classes "
                f"of {self._manifest['dataset']!r}; give it that data set's classifier"
            )
        rest = {key: value for key, value in row.items() if key != "image_id"}
        return {**rest, "category_id": self._category_ids[row["category_id"]]}

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Score on the main process: ``{"bbox": {"AP": …}, "segm": {…}}`` in percent; None on the other ranks."""
        assert self._writer is not None, "reset() comes first"
        file = self._writer.close()
        self._writer = None
        with_masks, files = zip(*comm.all_gather((self._with_masks, file)), strict=True)
        masks = any(with_masks)
        tasks = self._tasks or (["bbox", "segm"] if masks else ["bbox"])
        if not comm.is_main_process():
            return None
        self._write_manifest(tasks, {name: sha256 for file in files for name, sha256 in file.items()})
        return score_predictions(self._folder, **self._options).results

    def _write_manifest(self, tasks: list[str] | None, sha256: Mapping[str, str] | None = None) -> None:
        about = {"tasks": tasks, "ranks": comm.get_world_size(), "sha256": dict(sha256 or {})}
        write_manifest(self._folder, {**self._manifest, **about})
