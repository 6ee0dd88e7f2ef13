"""The loader of an evaluation: every image once, shared out among the processes."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from pomp_det.data.evaluation_mapper import build_test_mapper
from pomp_det.data.registration import registered_metadata
from pomp_engine.loader import evaluation_loader
from prompt_core.errors import UserError


def build_test_loader(cfg: CfgNode, dataset: str, with_ground_truth: bool = False) -> Any:
    """Batches of one image, resized as ``INPUT`` says.

    Args:
        dataset: a registered data set with boxes.
        with_ground_truth: examples carry ``instances``, for :class:`pomp_det.oracle.OracleDetector`.

    Raises:
        UserError: when the data set is unknown, has no boxes or no images.
    """
    if registered_metadata(dataset).get("evaluator_type") == "image_labels":
        raise UserError(f"data set {dataset!r} has image labels and no boxes; it cannot be in DATASETS.TEST")
    records = DatasetCatalog.get(dataset)
    if not records:
        raise UserError(f"data set {dataset!r} has no images to evaluate")
    return evaluation_loader(records, build_test_mapper(cfg, with_ground_truth), cfg.DATALOADER.NUM_WORKERS)
