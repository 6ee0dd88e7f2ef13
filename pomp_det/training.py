"""Training of a detector: the engine's loop with the detector's loader, checkpoints and checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from torch import nn
from torch.utils.data import DataLoader

from pomp_det.checkpoint import DetectorCheckpointer
from pomp_det.checks import check_class_counts
from pomp_det.classifier import set_classifier
from pomp_det.data.loader import build_train_loader
from pomp_engine.loop import train
from prompt_core.errors import UserError


def train_detector(
    cfg: CfgNode, model: nn.Module, resume: bool = False, evaluate: Callable[[], Mapping[str, float]] | None = None
) -> None:
    """Train ``model`` for ``SOLVER.MAX_ITER`` iterations and write ``model_final.pth`` into ``OUTPUT_DIR``.

    See :func:`pomp_engine.loop.train`.

    Args:
        resume: go on from the last checkpoint in ``OUTPUT_DIR``, where there is one.
        evaluate: called by every process each ``TEST.EVAL_PERIOD`` iterations, where that is above 0; the numbers that
            the main process gets go into the log. It changes nothing in the training.

    Raises:
        UserError: as :func:`pomp_det.data.loader.build_train_loader`; a folder that holds another run; a loss that is
            not finite.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with ``model_last.pth`` written.
    """

    def build_loader(cfg: CfgNode, start: int) -> DataLoader[Any]:
        check_class_counts(model)
        return build_train_loader(cfg, start)

    train(
        cfg,
        model,
        build_loader=build_loader,
        checkpointer_class=DetectorCheckpointer,
        prepare=partial(_reset_classes, cfg, model) if cfg.MODEL.RESET_CLS_TRAIN else None,
        resume=resume,
        evaluate=evaluate,
    )


def _reset_classes(cfg: CfgNode, model: nn.Module) -> None:
    """POMP's ``RESET_CLS_TRAIN``: the first of ``TRAIN_CLASSIFIERS``, whatever the checkpoint held."""
    names, counts = list(cfg.MODEL.TRAIN_CLASSIFIERS), list(cfg.MODEL.TRAIN_NUM_CLASSES)
    if len(names) != 1 or len(counts) not in (0, 1):
        raise UserError(
            f"MODEL.RESET_CLS_TRAIN needs one of TRAIN_CLASSIFIERS and TRAIN_NUM_CLASSES, not {names} and {counts}"
        )
    set_classifier(model, names[0])
    heads: Any = model.roi_heads
    if counts and heads.num_classes != counts[0]:
        raise UserError(f"{names[0]} has {heads.num_classes} classes, MODEL.TRAIN_NUM_CLASSES says {counts[0]}")
