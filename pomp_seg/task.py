"""What the training tool does with a segmenter, in one process of a run: train, evaluate, or score again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from detectron2.config import CfgNode
from torch import nn

from pomp_engine import run
from pomp_engine.loop import train as run_training
from pomp_engine.run import Results, Task
from pomp_engine.solver import build_segmentation_optimizer
from pomp_seg.build import build_segmenter
from pomp_seg.checkpoint import SegmenterCheckpointer, load_weights
from pomp_seg.checks import check_run, register_configured
from pomp_seg.data.loader import build_train_loader
from pomp_seg.evaluation.evaluate import evaluate_segmenter, score_again


def train(cfg: CfgNode, resume: bool = False) -> Results:
    """See :func:`pomp_engine.run.train`."""
    return run.train(segmentation_task(), cfg, resume)


def evaluate(cfg: CfgNode, weights: str = "") -> Results:
    """See :func:`pomp_engine.run.evaluate`."""
    return run.evaluate(segmentation_task(), cfg, weights)


def score(cfg: CfgNode) -> Results:
    """See :func:`pomp_engine.run.score`."""
    return run.score(segmentation_task(), cfg)


def train_segmenter(
    cfg: CfgNode, model: nn.Module, resume: bool = False, evaluate: Callable[[], Mapping[str, float]] | None = None
) -> None:
    """Train ``model`` for ``SOLVER.MAX_ITER`` iterations; see :func:`pomp_engine.loop.train`."""
    run_training(
        cfg,
        model,
        build_loader=build_train_loader,
        checkpointer_class=SegmenterCheckpointer,
        build_optimizer=build_segmentation_optimizer,
        resume=resume,
        evaluate=evaluate,
    )


def segmentation_task() -> Task:
    """The parts of a segmenter's run."""
    return Task(
        package="pomp_seg",
        register=register_configured,
        build=build_segmenter,
        check=check_run,
        load=load_weights,
        train=train_segmenter,
        evaluate=evaluate_segmenter,
        score=score_again,
    )
