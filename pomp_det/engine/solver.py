"""Optimiser and learning-rate schedule by ``SOLVER``, as published files set them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler as detectron2_scheduler
from detectron2.solver import build_optimizer as detectron2_optimizer
from detectron2.solver.build import maybe_add_gradient_clipping, reduce_param_groups
from torch import nn

from prompt_core.errors import UserError, nearest

OPTIMIZERS = ("SGD", "ADAMW")
SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Detectron2's SGD, or with ``SOLVER.USE_CUSTOM_SOLVER`` the published one (Detic, arXiv 2201.02605).

    The published one is SGD or AdamW with weight decay on every parameter. Parameters whose name contains
    ``backbone`` learn at ``BACKBONE_MULTIPLIER`` times the rate, those that contain one of
    ``CUSTOM_MULTIPLIER_NAME`` at ``CUSTOM_MULTIPLIER`` times. Gradients are clipped by value or norm of each parameter
    (``CLIP_GRADIENTS.CLIP_TYPE`` ``value``, ``norm``) or by the norm of all (``full_model``).

    Raises:
        UserError: for an unknown optimiser or kind of clipping.
    """
    kind = cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE
    if kind not in ("value", "norm", "full_model"):
        raise UserError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {kind!r}; expected value, norm or full_model")
    whole = cfg.SOLVER.CLIP_GRADIENTS.ENABLED and kind == "full_model"
    if whole:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    if not cfg.SOLVER.USE_CUSTOM_SOLVER:
        optimizer = detectron2_optimizer(cfg, model)
    else:
        optimizer = maybe_add_gradient_clipping(cfg, _published_optimizer(cfg, model))
    if whole:
        _clip_before_step(optimizer, float(cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE))
    return optimizer


def _published_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    groups = reduce_param_groups(
        [
            {"params": [parameter], "lr": cfg.SOLVER.BASE_LR * _multiplier(cfg, name)}
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        ]
    )
    name = cfg.SOLVER.OPTIMIZER
    decay = cfg.SOLVER.WEIGHT_DECAY
    if name == "SGD":
        return torch.optim.SGD(groups, momentum=cfg.SOLVER.MOMENTUM, nesterov=cfg.SOLVER.NESTEROV, weight_decay=decay)
    if name == "ADAMW":
        first, second = (float(rate) for rate in cfg.SOLVER.BETAS)
        return torch.optim.AdamW(groups, betas=(first, second), weight_decay=decay)
    raise UserError(f"SOLVER.OPTIMIZER is {name!r}; expected {' or '.join(OPTIMIZERS)}{nearest(name, OPTIMIZERS)}")


def _multiplier(cfg: CfgNode, name: str) -> float:
    multiplier = float(cfg.SOLVER.BACKBONE_MULTIPLIER) if "backbone" in name else 1.0
    if any(part in name for part in cfg.SOLVER.CUSTOM_MULTIPLIER_NAME):
        multiplier *= float(cfg.SOLVER.CUSTOM_MULTIPLIER)
    return multiplier


def _clip_before_step(optimizer: torch.optim.Optimizer, norm: float) -> None:
    def clip(optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
        parameters: Iterable[Any] = (each for group in optimizer.param_groups for each in group["params"])
        nn.utils.clip_grad_norm_(parameters, norm)

    hook: Callable[..., None] = clip
    optimizer.register_step_pre_hook(hook)


def build_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
    """Detectron2's schedule of ``SOLVER.LR_SCHEDULER_NAME``, to be stepped after each iteration.

    Raises:
        UserError: for an unknown name.
    """
    name = cfg.SOLVER.LR_SCHEDULER_NAME
    if name not in SCHEDULES:
        hint = nearest(name, SCHEDULES)
        raise UserError(f"SOLVER.LR_SCHEDULER_NAME is {name!r}; expected {', '.join(SCHEDULES)}{hint}")
    return detectron2_scheduler(cfg, optimizer)
