"""Evaluation on every test set, each with its own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.utils import comm
from torch import nn

from pomp_engine.loader import evaluation_loader
from pomp_seg.checks import REGIONS
from pomp_seg.data.loader import build_mapper
from pomp_seg.evaluation.classification import RegionClassificationEvaluator
from pomp_seg.evaluation.evaluator import SegmentationEvaluator
from pomp_seg.evaluation.scoring import score_predictions
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import run_description, write_metrics
from prompt_core.files import read_json

Results = dict[str, dict[str, dict[str, float]]]


def evaluate_segmenter(cfg: CfgNode, model: nn.Module) -> Results:
    """Inference and scores of each of ``DATASETS.TEST``; to be called by all processes.

    Predictions, scores and per-class scores of a data set go to ``OUTPUT_DIR/inference_NAME``, all numbers with their
    protocols to ``OUTPUT_DIR/metrics.json``.

    Returns:
        ``{"voc_sem_seg_test": {"sem_seg": {"mIoU": …}}}`` in percent; empty on all but the main process.

    Raises:
        UserError: for unknown names, before any inference.
    """
    evaluators = [build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
    results: Results = {}
    for name, evaluator in zip(cfg.DATASETS.TEST, evaluators, strict=True):
        mapper = build_mapper(cfg, False, name)
        loader = evaluation_loader(DatasetCatalog.get(name), mapper, cfg.DATALOADER.NUM_WORKERS)
        found = inference_on_dataset(model, loader, evaluator)
        if found:
            results[name] = dict(found)
        comm.synchronize()
    if comm.is_main_process():
        gather_metrics(cfg)
    return results


def build_evaluator(cfg: CfgNode, dataset: str) -> DatasetEvaluator:
    """The evaluator of a test set, with the protocol that the configuration asks for."""
    folder = inference_folder(cfg, dataset)
    if cfg.INPUT.DATASET_MAPPER_NAME == REGIONS:
        return RegionClassificationEvaluator(dataset, folder, run=_run(cfg))
    return SegmentationEvaluator(dataset, folder, denominator=cfg.TEST.MIOU_DENOMINATOR, run=_run(cfg))


def score_again(cfg: CfgNode) -> Results:
    """Scores of the predictions that an earlier evaluation left in ``OUTPUT_DIR``, without inference.

    Raises:
        UserError: when there are none, or they are unfinished.
    """
    if cfg.INPUT.DATASET_MAPPER_NAME == REGIONS:
        raise UserError("a prompt tuning leaves no predictions to score again; use --eval-only")
    results: Results = {}
    for name in cfg.DATASETS.TEST:
        folder = inference_folder(cfg, name)
        scores = score_predictions(folder, denominator=cfg.TEST.MIOU_DENOMINATOR, run=_run(cfg))
        results[name] = scores.results
    gather_metrics(cfg)
    return results


def inference_folder(cfg: CfgNode, dataset: str) -> Path:
    """Where the predictions for a test set lie."""
    return Path(cfg.OUTPUT_DIR) / f"inference_{dataset}"


def gather_metrics(cfg: CfgNode) -> None:
    """Put the numbers of all test sets into one ``metrics.json``."""
    numbers: dict[str, Any] = {}
    protocols: dict[str, Any] = {}
    for name in cfg.DATASETS.TEST:
        document = read_json(inference_folder(cfg, name) / "metrics.json")
        protocols |= document.pop("_protocol")
        document.pop("_run")
        numbers |= document
    write_metrics(Path(cfg.OUTPUT_DIR) / "metrics.json", numbers, _run(cfg), protocols)


def _run(cfg: CfgNode) -> dict[str, Any]:
    return run_description(cfg.dump(), int(cfg.SEED), str(cfg.MODEL.DEVICE), weights=cfg.MODEL.WEIGHTS)
