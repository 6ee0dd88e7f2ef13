"""Evaluation on every test set, each with its own classes where the configuration names them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from torch import nn

from pomp_det.checks import check_classes, classifier_of_test
from pomp_det.classifier import temporary_classes
from pomp_det.data.evaluation_loader import build_test_loader
from pomp_det.evaluation.evaluator import DetectionEvaluator
from pomp_det.evaluation.scoring import score_predictions
from pomp_det.oracle import OracleDetector
from prompt_core.evaluation.protocol import run_description, write_metrics
from prompt_core.files import read_json

Results = dict[str, dict[str, dict[str, float]]]


def evaluate_detector(cfg: CfgNode, model: nn.Module, backend: str = "hotcoco", oracle: str = "") -> Results:
    """Inference and scores of each of ``DATASETS.TEST``; to be called by all processes.

    Predictions, scores and per-class scores of a data set go to ``OUTPUT_DIR/inference_NAME`` (with an oracle,
    ``inference_NAME_oracle_KIND``), all numbers with their protocols to ``OUTPUT_DIR/metrics.json``.

    Args:
        backend: see :func:`pomp_det.evaluation.scoring.score_predictions`.
        oracle: one of :data:`pomp_det.oracle.ORACLES`, or empty.

    Returns:
        ``{"lvis_v1_val": {"bbox": {"AP": …}, "segm": {…}}}`` in percent; empty on all but the main process.

    Raises:
        UserError: for unknown names, before any inference.
    """
    evaluators = [build_evaluator(cfg, name, backend, oracle) for name in cfg.DATASETS.TEST]
    loaders = [build_test_loader(cfg, name, bool(oracle)) for name in cfg.DATASETS.TEST]
    subject = OracleDetector(model, oracle) if oracle else model
    results: Results = {}
    for number, name in enumerate(cfg.DATASETS.TEST):
        with classes_of_test(cfg, model, number):
            check_classes(model, name)
            found = inference_on_dataset(subject, loaders[number], evaluators[number])
        if found:
            results[name] = found
        comm.synchronize()
    if comm.is_main_process():
        gather_metrics(cfg, oracle)
    return results


def build_evaluator(cfg: CfgNode, dataset: str, backend: str = "hotcoco", oracle: str = "") -> DetectionEvaluator:
    """The evaluator of a test set, with the protocol that the configuration asks for."""
    return DetectionEvaluator(
        dataset,
        inference_folder(cfg, dataset, oracle),
        detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        run=_run(cfg),
        backend=backend,
        **_protocol(cfg, dataset),
    )


def score_again(cfg: CfgNode, backend: str = "hotcoco", oracle: str = "") -> Results:
    """Scores of the predictions that an earlier evaluation left in ``OUTPUT_DIR``, without inference.

    Raises:
        UserError: when there are none, or they are unfinished.
    """
    results = {
        name: score_predictions(
            inference_folder(cfg, name, oracle), backend=backend, run=_run(cfg), **_protocol(cfg, name)
        ).results
        for name in cfg.DATASETS.TEST
    }
    gather_metrics(cfg, oracle)
    return results


def inference_folder(cfg: CfgNode, dataset: str, oracle: str = "") -> Path:
    """Where the predictions for a test set lie."""
    return Path(cfg.OUTPUT_DIR) / f"inference_{dataset}{f'_oracle_{oracle}' if oracle else ''}"


def _protocol(cfg: CfgNode, dataset: str) -> dict[str, Any]:
    """Fixed AP is one switch for all test sets; those that it is not defined for keep their own protocol."""
    from pomp_det.data.registration import registered_metadata

    federated = registered_metadata(dataset).get("evaluator_type") == "lvis"
    return {
        "fixed_ap": bool(cfg.EVAL_AP_FIX) and federated,
        "masks_without_ground_truth": cfg.TEST.MASKS_WITHOUT_GROUND_TRUTH,
    }


def _run(cfg: CfgNode) -> dict[str, Any]:
    return run_description(cfg.dump(), int(cfg.SEED), str(cfg.MODEL.DEVICE), weights=cfg.MODEL.WEIGHTS)


def gather_metrics(cfg: CfgNode, oracle: str = "") -> None:
    """Put the numbers of all test sets into one ``metrics.json`` (``metrics_oracle_KIND.json``)."""
    numbers: dict[str, Any] = {}
    protocols: dict[str, Any] = {}
    for name in cfg.DATASETS.TEST:
        document = read_json(inference_folder(cfg, name, oracle) / "metrics.json")
        protocols |= document.pop("_protocol")
        document.pop("_run")
        numbers |= document
    if oracle:
        protocols = {name: {**protocol, "oracle": oracle} for name, protocol in protocols.items()}
    file = f"metrics_oracle_{oracle}.json" if oracle else "metrics.json"
    write_metrics(Path(cfg.OUTPUT_DIR) / file, numbers, _run(cfg), protocols)


def classes_of_test(cfg: CfgNode, model: nn.Module, number: int) -> contextlib.AbstractContextManager[None]:
    """The classes of test set ``number`` with ``MODEL.RESET_CLS_TESTS``; the model's own come back afterwards.

    Raises:
        UserError: as :func:`pomp_det.checks.classifier_of_test`.
    """
    matrix = classifier_of_test(cfg, number)
    return contextlib.nullcontext() if matrix is None else temporary_classes(model, matrix)
