"""The work of one process of a run, whatever the task: train, evaluate, or score again."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from pomp_engine import loop
from pomp_engine.backbones.timm_backbones import pretrained_weights
from pomp_engine.evaluation import flat_metrics
from pomp_engine.run_folder import FINAL, start_log, weights_to_evaluate
from pomp_engine.task import Results, Task
from pomp_engine.trained_weights import learned_weights, load_trained
from prompt_core.errors import UserError
from prompt_core.runs.lock import alone_in
from prompt_core.visible import say


def train(task: Task, cfg: CfgNode, resume: bool = False) -> Results:
    """Build, check, train and, where ``DATASETS.TEST`` names sets, evaluate.

    Raises:
        UserError: bad input, before any training; another run in the folder; a loss that is not finite.
    """
    with _alone(cfg):
        return _train(task, cfg, resume)


def _train(task: Task, cfg: CfgNode, resume: bool) -> Results:
    model = _prepare(task, cfg)
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name at least one data set")
    cfg = _with_weights(cfg, cfg.MODEL.WEIGHTS or pretrained_weights(cfg))
    task.check(cfg, model, True)
    loop.train(task, cfg, model, resume, partial(_numbers, task, cfg, model) if cfg.DATASETS.TEST else None)
    final = str(Path(cfg.OUTPUT_DIR) / f"{FINAL}.pth")
    return _evaluate(task, _with_weights(cfg, final), model) if cfg.DATASETS.TEST else {}


def evaluate(task: Task, cfg: CfgNode, weights: str = "") -> Results:
    """Evaluate a checkpoint.

    Args:
        weights: the checkpoint; where left out, the newest of the run in ``OUTPUT_DIR``, else ``MODEL.WEIGHTS``.

    Raises:
        UserError: bad input; neither weights nor a run, or weights that lack some of the model's; another run in the
            folder.
    """
    with _alone(cfg):
        model = _prepare(task, cfg)
        _check_test_sets(cfg)
        cfg = _with_weights(cfg, weights or weights_to_evaluate(cfg, bool(learned_weights(model))))
        task.check(cfg, model, False)
        load_trained(model, cfg, task.load)
        return _evaluate(task, cfg, model)


def score(task: Task, cfg: CfgNode) -> Results:
    """Score the predictions of an earlier evaluation again, on the main process.

    Raises:
        UserError: when there are none, or another run is in the folder.
    """
    with _alone(cfg):
        _set_up(task, cfg)
        _check_test_sets(cfg)
        if not comm.is_main_process():
            return {}
        results = task.score(cfg)
        _print(task, results)
        return results


def _alone(cfg: CfgNode) -> AbstractContextManager[None]:
    """The folder of the run, held by the main process for all of its group."""
    return alone_in(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext()


def _numbers(task: Task, cfg: CfgNode, model: nn.Module) -> dict[str, float]:
    """The numbers of an evaluation amid the training, for its log."""
    return flat_metrics(task.evaluate(cfg, model.eval()), task.kinds)


def _evaluate(task: Task, cfg: CfgNode, model: nn.Module) -> Results:
    results = task.evaluate(cfg, model.eval())
    if comm.is_main_process():
        _print(task, results)
    return results


def _with_weights(cfg: CfgNode, weights: str) -> CfgNode:
    """The configuration with other weights, so that results and the run's folder name those that were used."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = weights
    return cfg


def _prepare(task: Task, cfg: CfgNode) -> nn.Module:
    _set_up(task, cfg)
    # Heads start alike in every process, and for every run of a seed.
    torch.manual_seed(cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed())
    return task.build(cfg)


def _set_up(task: Task, cfg: CfgNode) -> None:
    start_log(cfg.OUTPUT_DIR, task.package)
    task.register(cfg)


def _check_test_sets(cfg: CfgNode) -> None:
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name at least one data set to evaluate on")


def _print(task: Task, results: Results) -> None:
    for dataset, kinds in results.items():
        for kind, numbers in kinds.items():
            shown: Any = "  ".join(f"{name} {value:.1f}" for name, value in numbers.items())
            say(f"{dataset} {task.kinds.get(kind, kind)}: {shown}")
