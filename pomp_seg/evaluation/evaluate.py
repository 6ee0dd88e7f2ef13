"""Evaluation of a segmenter on every test set, each with its own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from torch import nn

from pomp_engine.data.proposal_files import proposals_variant
from pomp_engine.evaluation import evaluate_sets, inference_folder, run_entry, score_sets
from pomp_engine.loader import evaluation_loader
from pomp_engine.task import Results
from pomp_seg.best_classes import BestClasses
from pomp_seg.checks import REGIONS
from pomp_seg.data.loader import build_mapper
from pomp_seg.evaluation.classification import RegionClassificationEvaluator
from pomp_seg.evaluation.evaluator import SegmentationEvaluator
from pomp_seg.evaluation.scoring import score_predictions
from pomp_seg.oracle_regions import OracleSegmenter
from pomp_seg.views import ViewOptions, with_views
from prompt_core.errors import UserError


def evaluate_segmenter(cfg: CfgNode, model: nn.Module) -> Results:
    """Inference and scores of each of ``DATASETS.TEST``; to be called by all processes.

    Predictions, scores and per-class scores of a data set go to ``OUTPUT_DIR/inference_NAME``, all numbers with their
    protocols to ``OUTPUT_DIR/metrics.json``; with ``ORACLE``, whose masks are the ground truth's, to
    ``inference_NAME_oracle_masks`` and ``metrics_oracle_masks.json``, with ``MODEL.PROPOSALS.FILE`` likewise to
    ``…_proposals_given``, with several views of a photo to ``…_views_sizes_windows_crf``.

    Returns:
        ``{"voc_sem_seg_test": {"sem_seg": {"mIoU": …}}}`` in percent; empty on all but the main process.

    Raises:
        UserError: for unknown names, before any inference.
    """

    def build_evaluator(dataset: str) -> DatasetEvaluator:
        folder, run = inference_folder(cfg, dataset, _variant(cfg)), run_entry(cfg)
        if cfg.INPUT.DATASET_MAPPER_NAME == REGIONS:
            return RegionClassificationEvaluator(dataset, folder, run=run)
        return SegmentationEvaluator(dataset, folder, denominator=cfg.TEST.MIOU_DENOMINATOR, run=run)

    def build_loader(dataset: str) -> Any:
        mapper = build_mapper(cfg, False, dataset)
        records, images = DatasetCatalog.get(dataset), int(cfg.SOLVER.TEST_IMS_PER_BATCH)
        if cfg.MODEL.PROPOSALS.FILE:
            segmenter_of: Any = getattr(model, "module", model)
            segmenter_of.proposal_file.say_absent(dataset, records)
        return evaluation_loader(records, mapper, cfg.DATALOADER.NUM_WORKERS, images)

    if cfg.ORACLE and cfg.MODEL.PROPOSALS.FILE:
        raise UserError("ORACLE takes the true regions; leave MODEL.PROPOSALS.FILE empty, or set ORACLE to False")
    segmenter = OracleSegmenter(model) if "oracle" in _variant(cfg) else model
    if cfg.INPUT.DATASET_MAPPER_NAME != REGIONS:
        segmenter = BestClasses(with_views(segmenter, cfg))
    return evaluate_sets(cfg, segmenter, build_evaluator, build_loader, variant=_variant(cfg))


def score_again(cfg: CfgNode) -> Results:
    """Scores of the predictions of an earlier evaluation in ``OUTPUT_DIR``, without inference.

    Raises:
        UserError: when there are none, or they are unfinished.
    """
    if cfg.INPUT.DATASET_MAPPER_NAME == REGIONS:
        raise UserError("a prompt tuning leaves no predictions to score again; use --eval-only")

    def score(dataset: str, folder: Path) -> dict[str, dict[str, float]]:
        return score_predictions(folder, denominator=cfg.TEST.MIOU_DENOMINATOR, run=run_entry(cfg)).results

    return score_sets(cfg, score, _variant(cfg))


def _variant(cfg: CfgNode) -> dict[str, str]:
    """What is unusual about an evaluation with ``ORACLE``, regions from outside, or several views of a photo.

    A tuned prompt always classifies the annotated regions.
    """
    if cfg.INPUT.DATASET_MAPPER_NAME == REGIONS:
        return {}
    views = ViewOptions.from_config(cfg).name
    given = {"oracle": "masks"} if cfg.ORACLE else proposals_variant(cfg)
    return given | ({"views": views} if views else {})
