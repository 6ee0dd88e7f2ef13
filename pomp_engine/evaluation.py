"""Evaluation of a run: inference on each test set, a folder of results for each, and one ``metrics.json``."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.utils import comm
from torch import nn

from pomp_engine.task import Results
from prompt_core.evaluation.protocol import read_metrics, run_description, write_metrics


def evaluate_sets(
    cfg: CfgNode,
    model: nn.Module,
    build_evaluator: Callable[[str], DatasetEvaluator],
    build_loader: Callable[[str], Any],
    classes_of: Callable[[int], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    variant: Mapping[str, str] | None = None,
) -> Results:
    """Run inference on each of ``DATASETS.TEST`` and return the numbers; all processes have to call it.

    Args:
        build_evaluator: called with the name of a test set; the evaluator writes ``metrics.json`` into
            :func:`inference_folder`.
        build_loader: called with the name of a test set; returns its batches.
        classes_of: called with the position of a test set; returns a context in which the model has its classes.
        variant: see :func:`inference_folder`.

    Returns:
        the numbers of each data set; empty in all but the main process.

    Raises:
        UserError: whatever the task's own parts raise; evaluators and loaders do so before any inference.
    """
    names = list(cfg.DATASETS.TEST)
    evaluators = [build_evaluator(name) for name in names]
    loaders = [build_loader(name) for name in names]
    results: Results = {}
    for number, (name, evaluator, loader) in enumerate(zip(names, evaluators, loaders, strict=True)):
        with classes_of(number):
            numbers = inference_on_dataset(model, loader, evaluator)
        if numbers:
            results[name] = dict(numbers)
        comm.synchronize()
    if comm.is_main_process():
        gather_metrics(cfg, variant)
    return results


def score_sets(
    cfg: CfgNode, score: Callable[[str, Path], Mapping[str, dict[str, float]]], variant: Mapping[str, str] | None = None
) -> Results:
    """Score the predictions that an earlier evaluation left in ``OUTPUT_DIR``, without inference.

    Args:
        score: called with the name and :func:`inference_folder` of a test set; returns its numbers and writes its
            ``metrics.json``.
    """
    results = {name: dict(score(name, inference_folder(cfg, name, variant))) for name in cfg.DATASETS.TEST}
    gather_metrics(cfg, variant)
    return results


def inference_folder(cfg: CfgNode, dataset: str, variant: Mapping[str, str] | None = None) -> Path:
    """Where the predictions and numbers of a test set go: ``OUTPUT_DIR/inference_NAME``.

    Args:
        variant: what is unusual about an evaluation, such as ``{"oracle": "boxes"}``. It gets files of its own
            (``inference_NAME_oracle_boxes``, ``metrics_oracle_boxes.json``) and is part of the protocols.
    """
    return Path(cfg.OUTPUT_DIR) / f"inference_{dataset}{_ending(variant)}"


def flat_metrics(results: Results, kinds: Mapping[str, str] | None = None) -> dict[str, float]:
    """Numbers of data sets as ``{"lvis_v1_val/box_AP": …}``, without undefined ones.

    Args:
        kinds: what to call the evaluators' kinds of results, such as ``box`` for ``bbox``; other kinds are left out of
            the name.
    """
    kinds = kinds or {}
    return {
        f"{dataset}/{kinds[kind]}_{name}" if kind in kinds else f"{dataset}/{name}": value
        for dataset, numbers_of_kind in results.items()
        for kind, numbers in numbers_of_kind.items()
        for name, value in numbers.items()
        if math.isfinite(value)
    }


def run_entry(cfg: CfgNode) -> dict[str, Any]:
    """The ``_run`` entry of ``metrics.json``: configuration, seed, device and weights."""
    return run_description(cfg.dump(), int(cfg.SEED), str(cfg.MODEL.DEVICE), weights=cfg.MODEL.WEIGHTS)


def gather_metrics(cfg: CfgNode, variant: Mapping[str, str] | None = None) -> None:
    """Gather the numbers of all test sets in ``OUTPUT_DIR/metrics.json``."""
    numbers: dict[str, Any] = {}
    protocols: dict[str, Any] = {}
    for name in cfg.DATASETS.TEST:
        document = read_metrics(inference_folder(cfg, name, variant) / "metrics.json")
        protocols |= {dataset: protocol | (variant or {}) for dataset, protocol in document["_protocol"].items()}
        numbers |= {name: value for name, value in document.items() if name not in ("_run", "_protocol")}
    write_metrics(Path(cfg.OUTPUT_DIR) / f"metrics{_ending(variant)}.json", numbers, run_entry(cfg), protocols)


def _ending(variant: Mapping[str, str] | None) -> str:
    return "".join(f"_{name}_{value}" for name, value in (variant or {}).items())
