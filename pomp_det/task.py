"""The parts of a detector's run."""

from __future__ import annotations

from functools import partial
from typing import Any

from detectron2.config import CfgNode
from torch import nn
from torch.utils.data import DataLoader

from pomp_det.build import build_detector
from pomp_det.checkpoint import DetectorCheckpointer, load_weights
from pomp_det.checks import check_class_facts, check_run, register_configured
from pomp_det.classifier import set_classifier
from pomp_det.data.loader import build_train_loader
from pomp_det.evaluation.evaluate import evaluate_detector, score_again
from pomp_det.evaluation.scoring import TASKS
from pomp_engine.task import Task
from prompt_core.errors import UserError


def detection_task(backend: str = "hotcoco", oracle: str = "") -> Task:
    """The parts of a detector's run.

    Args:
        backend: see :func:`pomp_det.evaluation.scoring.score_predictions`.
        oracle: one of :data:`pomp_det.oracle.ORACLES`, or empty.
    """
    return Task(
        package="pomp_det",
        register=register_configured,
        build=build_detector,
        check=check_run,
        load=load_weights,
        build_loader=_build_loader,
        evaluate=partial(evaluate_detector, backend=backend, oracle=oracle),
        score=partial(score_again, backend=backend, oracle=oracle),
        checkpointer=DetectorCheckpointer,
        prepare=_reset_classes,
        kinds=TASKS,
    )


def _build_loader(cfg: CfgNode, model: nn.Module, start: int) -> DataLoader[Any]:
    check_class_facts(model)
    return build_train_loader(cfg, start)


def _reset_classes(cfg: CfgNode, model: nn.Module) -> None:
    """POMP's ``RESET_CLS_TRAIN``: the first of ``TRAIN_CLASSIFIERS``, whatever the checkpoint held."""
    if not cfg.MODEL.RESET_CLS_TRAIN:
        return
    names, counts = list(cfg.MODEL.TRAIN_CLASSIFIERS), list(cfg.MODEL.TRAIN_NUM_CLASSES)
    if len(names) != 1 or len(counts) not in (0, 1):
        raise UserError(
            f"MODEL.RESET_CLS_TRAIN needs one of TRAIN_CLASSIFIERS and TRAIN_NUM_CLASSES, not {names} and {counts}"
        )
    set_classifier(model, names[0])
    heads: Any = model.roi_heads
    if counts and heads.num_classes != counts[0]:
        raise UserError(f"{names[0]} has {heads.num_classes} classes, MODEL.TRAIN_NUM_CLASSES says {counts[0]}")
