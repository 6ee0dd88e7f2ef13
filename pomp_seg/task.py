"""The parts of a segmenter's run."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from torch import nn
from torch.utils.data import DataLoader

from pomp_engine.solver import build_segmentation_optimizer
from pomp_engine.task import Task
from pomp_seg.build import build_segmenter
from pomp_seg.checkpoint import SegmenterCheckpointer, load_weights
from pomp_seg.checks import check_run
from pomp_seg.data.loader import build_train_loader
from pomp_seg.data.registration import register_configured
from pomp_seg.evaluation.evaluate import evaluate_segmenter, score_again


def segmentation_task() -> Task:
    """The parts of a segmenter's run."""
    return Task(
        package="pomp_seg",
        register=register_configured,
        build=build_segmenter,
        check=check_run,
        load=load_weights,
        build_loader=_build_loader,
        evaluate=evaluate_segmenter,
        score=score_again,
        checkpointer=SegmenterCheckpointer,
        build_optimizer=build_segmentation_optimizer,
    )


def _build_loader(cfg: CfgNode, model: nn.Module, start: int) -> DataLoader[Any]:
    return build_train_loader(cfg, start)
