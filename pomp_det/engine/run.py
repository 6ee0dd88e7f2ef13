"""What the training tool does, in one process of a run: train, evaluate, or score again."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from pomp_det.build import build_detector
from pomp_det.checkpoint import load_weights
from pomp_det.engine.checks import check_run, register_configured
from pomp_det.engine.evaluation import Results, evaluate_detector, score_again
from pomp_det.engine.training import train_detector
from pomp_det.evaluation.scoring import TASKS
from pomp_engine.run_folder import start_log, weights_to_evaluate
from prompt_core.errors import UserError


def train(cfg: CfgNode, resume: bool = False, backend: str = "hotcoco") -> Results:
    """Build, check, train and, where ``DATASETS.TEST`` names sets, evaluate.

    Raises:
        UserError: bad input, before any training; a loss that is not finite.
    """
    model = _prepare(cfg)
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name at least one data set")
    check_run(cfg, model, training=True)
    train_detector(cfg, model, resume, partial(_numbers, cfg, model, backend) if cfg.DATASETS.TEST else None)
    return _evaluate(cfg, model, backend) if cfg.DATASETS.TEST else {}


def evaluate(cfg: CfgNode, backend: str = "hotcoco", oracle: str = "", weights: str = "") -> Results:
    """Evaluate a checkpoint.

    Args:
        weights: the checkpoint; where left out, the newest of the run in ``OUTPUT_DIR``, else ``MODEL.WEIGHTS``.

    Raises:
        UserError: bad input; neither weights nor a run.
    """
    model = _prepare(cfg)
    _check_test_sets(cfg)
    weights = weights or weights_to_evaluate(cfg)
    check_run(cfg, model, training=False)
    load_weights(model, weights)
    return _evaluate(cfg, model, backend, oracle)


def score(cfg: CfgNode, backend: str = "hotcoco", oracle: str = "") -> Results:
    """Score the predictions of an earlier evaluation again, on the main process.

    Raises:
        UserError: when there are none.
    """
    _set_up(cfg)
    _check_test_sets(cfg)
    if not comm.is_main_process():
        return {}
    results = score_again(cfg, backend, oracle)
    _print(results)
    return results


def _numbers(cfg: CfgNode, model: nn.Module, backend: str) -> dict[str, float]:
    """The numbers of an evaluation amid the training, for its log."""
    results = evaluate_detector(cfg, model.eval(), backend)
    return {
        f"{dataset}/{TASKS[task]}_{name}": value
        for dataset, tasks in results.items()
        for task, numbers in tasks.items()
        for name, value in numbers.items()
        if math.isfinite(value)
    }


def _evaluate(cfg: CfgNode, model: nn.Module, backend: str, oracle: str = "") -> Results:
    results = evaluate_detector(cfg, model.eval(), backend, oracle)
    if comm.is_main_process():
        _print(results)
    return results


def _prepare(cfg: CfgNode) -> nn.Module:
    _set_up(cfg)
    # Heads start alike in every process, and for every run of a seed.
    torch.manual_seed(cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed())
    return build_detector(cfg)


def _set_up(cfg: CfgNode) -> None:
    start_log(cfg.OUTPUT_DIR, "pomp_det")
    register_configured(cfg)


def _check_test_sets(cfg: CfgNode) -> None:
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name at least one data set to evaluate on")


def _print(results: Results) -> None:
    for dataset, tasks in results.items():
        for task, numbers in tasks.items():
            shown: Any = "  ".join(f"{name} {value:.1f}" for name, value in numbers.items())
            print(f"{dataset} {TASKS[task]}: {shown}", file=sys.stdout)
