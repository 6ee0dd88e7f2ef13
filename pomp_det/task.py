"""What the training tool does with a detector, in one process of a run: train, evaluate, or score again."""

from __future__ import annotations

from detectron2.config import CfgNode

from pomp_det.build import build_detector
from pomp_det.checkpoint import load_weights
from pomp_det.checks import check_run, register_configured
from pomp_det.evaluation.evaluate import evaluate_detector, score_again
from pomp_det.evaluation.scoring import TASKS
from pomp_det.training import train_detector
from pomp_engine import run
from pomp_engine.run import Results, Task


def train(cfg: CfgNode, resume: bool = False, backend: str = "hotcoco") -> Results:
    """See :func:`pomp_engine.run.train`.

    Args:
        backend: see :func:`pomp_det.evaluation.scoring.score_predictions`, as below.
    """
    return run.train(detection_task(backend), cfg, resume)


def evaluate(cfg: CfgNode, backend: str = "hotcoco", oracle: str = "", weights: str = "") -> Results:
    """See :func:`pomp_engine.run.evaluate`.

    Args:
        oracle: one of :data:`pomp_det.oracle.ORACLES`, or empty, as below.
    """
    return run.evaluate(detection_task(backend, oracle), cfg, weights)


def score(cfg: CfgNode, backend: str = "hotcoco", oracle: str = "") -> Results:
    """See :func:`pomp_engine.run.score`."""
    return run.score(detection_task(backend, oracle), cfg)


def detection_task(backend: str = "hotcoco", oracle: str = "") -> Task:
    """The parts of a detector's run."""
    return Task(
        package="pomp_det",
        register=register_configured,
        build=build_detector,
        check=check_run,
        load=load_weights,
        train=train_detector,
        evaluate=lambda cfg, model: evaluate_detector(cfg, model, backend, oracle),
        score=lambda cfg: score_again(cfg, backend, oracle),
        kinds=TASKS,
    )
