"""Evaluation of a detector on every test set, each with its own classes where the configuration names them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from pomp_det.box_masks import with_box_masks
from pomp_det.checks import check_classes, check_ground_truth, classifier_of_test
from pomp_det.classifier import temporary_classes
from pomp_det.data.evaluation_mapper import build_test_mapper
from pomp_det.data.registration import registered_metadata
from pomp_det.evaluation.evaluator import DetectionEvaluator
from pomp_det.evaluation.scoring import score_predictions
from pomp_det.oracle import OracleDetector
from pomp_engine.data.proposal_files import ProposalFile, proposals_variant
from pomp_engine.evaluation import evaluate_sets, inference_folder, run_entry, score_sets
from pomp_engine.loader import evaluation_loader
from pomp_engine.task import Results
from prompt_core.errors import UserError


def evaluate_detector(cfg: CfgNode, model: nn.Module, backend: str = "hotcoco", oracle: str = "") -> Results:
    """Inference and scores of each of ``DATASETS.TEST``; to be called by all processes.

    Predictions, scores and per-class scores of a data set go to ``OUTPUT_DIR/inference_NAME``, all numbers with their
    protocols to ``OUTPUT_DIR/metrics.json``; with an oracle the names end in ``_oracle_KIND``, with
    ``MODEL.PROPOSALS.FILE`` in ``_proposals_given``.

    Args:
        backend: see :func:`pomp_det.evaluation.scoring.score_predictions`.
        oracle: one of :data:`pomp_det.oracle.ORACLES`, or empty.

    Returns:
        ``{"lvis_v1_val": {"bbox": {"AP": …}, "segm": {…}}}`` in percent; empty on all but the main process.

    Raises:
        UserError: for unknown names, before any inference.
    """

    def build_evaluator(dataset: str) -> DetectionEvaluator:
        return DetectionEvaluator(
            dataset,
            inference_folder(cfg, dataset, _variant(cfg, oracle)),
            detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
            more_classes=cfg.MODEL.DYNAMIC_CLASSIFIER,
            run=run_entry(cfg),
            backend=backend,
            **_protocol(cfg, dataset),
        )

    @contextlib.contextmanager
    def classes_of(number: int) -> Iterator[None]:
        classifier = classifier_of_test(cfg, number)
        with contextlib.nullcontext() if classifier is None else temporary_classes(model, classifier):
            check_classes(model, cfg.DATASETS.TEST[number], cfg.MODEL.DYNAMIC_CLASSIFIER)
            yield

    if oracle and cfg.MODEL.PROPOSALS.FILE:
        raise UserError("an oracle has its own regions; leave MODEL.PROPOSALS.FILE empty")
    return evaluate_sets(
        cfg,
        with_box_masks(OracleDetector(model, oracle) if oracle else model),
        build_evaluator,
        lambda dataset: _build_loader(
            cfg, dataset, bool(oracle), getattr(getattr(model, "module", model), "proposal_file", None)
        ),
        classes_of,
        _variant(cfg, oracle),
    )


def score_again(cfg: CfgNode, backend: str = "hotcoco", oracle: str = "") -> Results:
    """Scores of the predictions that an earlier evaluation left in ``OUTPUT_DIR``, without inference.

    Raises:
        UserError: when there are none, or they are unfinished.
    """

    def score(dataset: str, folder: Path) -> dict[str, dict[str, float]]:
        return score_predictions(folder, backend=backend, run=run_entry(cfg), **_protocol(cfg, dataset)).results

    return score_sets(cfg, score, _variant(cfg, oracle))


def _build_loader(cfg: CfgNode, dataset: str, with_ground_truth: bool, proposals: ProposalFile | None = None) -> Any:
    """Every image once, resized as ``INPUT`` says, with ``instances`` for an oracle."""
    if registered_metadata(dataset).get("evaluator_type") == "image_labels":
        raise UserError(f"data set {dataset!r} has image labels and no boxes; it cannot be in DATASETS.TEST")
    check_ground_truth(dataset)
    records = DatasetCatalog.get(dataset)
    if not records:
        raise UserError(f"data set {dataset!r} has no images to evaluate")
    if proposals is not None:
        proposals.say_absent(dataset, records)
    return evaluation_loader(records, build_test_mapper(cfg, with_ground_truth), cfg.DATALOADER.NUM_WORKERS)


def _protocol(cfg: CfgNode, dataset: str) -> dict[str, Any]:
    """Fixed AP is one switch for all test sets; those that it is not defined for keep their own protocol."""
    federated = registered_metadata(dataset).get("evaluator_type") == "lvis"
    return {
        "fixed_ap": bool(cfg.EVAL_AP_FIX) and federated,
        "masks_without_ground_truth": cfg.TEST.MASKS_WITHOUT_GROUND_TRUTH,
    }


def _variant(cfg: CfgNode, oracle: str) -> dict[str, str]:
    return {"oracle": oracle} if oracle else proposals_variant(cfg)
