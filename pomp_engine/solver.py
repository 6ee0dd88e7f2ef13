"""Optimisers and learning-rate schedules from ``SOLVER``, with the meaning that its keys have in published files."""

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
from prompt_core.training.warm_up import warm_up_alone

OPTIMIZERS = ("SGD", "ADAMW")
SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR", "WarmupPolyLR")
# The base class is private in torch; it covers batch and instance norms of all kinds.
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Detectron2's SGD, or with ``SOLVER.USE_CUSTOM_SOLVER`` the published one (Detic, arXiv 2201.02605).

    The published one is SGD or AdamW with weight decay on every parameter. Parameters whose name contains
    ``backbone`` learn at ``BACKBONE_MULTIPLIER`` times the rate, those that contain one of
    ``CUSTOM_MULTIPLIER_NAME`` at ``CUSTOM_MULTIPLIER`` times. Gradients are clipped per parameter, by value or by norm
    (``CLIP_GRADIENTS.CLIP_TYPE`` ``value``, ``norm``), or by their joint norm (``full_model``).

    Raises:
        UserError: for an unknown optimiser or kind of clipping.
    """

    def build(cfg: CfgNode) -> torch.optim.Optimizer:
        if not cfg.SOLVER.USE_CUSTOM_SOLVER:
            return detectron2_optimizer(cfg, model)
        return maybe_add_gradient_clipping(cfg, _optimizer(cfg, _published_groups(cfg, model)))

    return _with_clipping(cfg, build)


def build_segmentation_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """MaskFormer's SGD or AdamW (arXiv 2107.06278), whichever ``SOLVER.OPTIMIZER`` names.

    Parameters whose name contains ``backbone`` learn at ``BACKBONE_MULTIPLIER`` times the rate. The weight decay is
    ``WEIGHT_DECAY_NORM`` in normalisation layers, unless that is None, and ``WEIGHT_DECAY_EMBED`` (0 where the
    configuration has no such key) in ``nn.Embedding``; ``WEIGHT_DECAY`` elsewhere. Gradients are clipped as in
    :func:`build_optimizer`.

    Raises:
        UserError: for an unknown optimiser or kind of clipping.
    """

    def build(cfg: CfgNode) -> torch.optim.Optimizer:
        return maybe_add_gradient_clipping(cfg, _optimizer(cfg, _segmentation_groups(cfg, model)))

    return _with_clipping(cfg, build)


def _with_clipping(cfg: CfgNode, build: Callable[[CfgNode], torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """The optimiser of ``build``, with clipping by the joint norm of all gradients, which Detectron2 lacks."""
    kind = cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE
    if kind not in ("value", "norm", "full_model"):
        raise UserError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {kind!r}; expected value, norm or full_model")
    whole = cfg.SOLVER.CLIP_GRADIENTS.ENABLED and kind == "full_model"
    if whole:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    optimizer = build(cfg)
    if whole:
        _clip_before_step(optimizer, float(cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE))
    return optimizer


def _published_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    return [
        {"params": [parameter], "lr": cfg.SOLVER.BASE_LR * _multiplier(cfg, name)}
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]


def _segmentation_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    node = cfg.SOLVER
    owners = {id(parameter): module for module in model.modules() for parameter in module.parameters(recurse=False)}
    groups = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group = {"params": [parameter], "lr": node.BASE_LR * (node.BACKBONE_MULTIPLIER if "backbone" in name else 1.0)}
        owner, decay = owners[id(parameter)], node.WEIGHT_DECAY
        if isinstance(owner, nn.Embedding):
            decay = node.get("WEIGHT_DECAY_EMBED", 0.0)
        elif isinstance(owner, _NORMS) and node.WEIGHT_DECAY_NORM is not None:
            decay = node.WEIGHT_DECAY_NORM
        groups.append({**group, "weight_decay": decay})
    return groups


def _optimizer(cfg: CfgNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    groups = reduce_param_groups(groups)
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
        parameters: Iterable[Any] = (parameter for group in optimizer.param_groups for parameter in group["params"])
        nn.utils.clip_grad_norm_(parameters, norm)

    hook: Callable[..., None] = clip
    optimizer.register_step_pre_hook(hook)


def build_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
    """Detectron2's schedule named by ``SOLVER.LR_SCHEDULER_NAME``; step it after each iteration.

    ``WarmupPolyLR`` is that of Detectron2's DeepLab, with ``SOLVER.POLY_LR_POWER`` and
    ``SOLVER.POLY_LR_CONSTANT_ENDING``, which default to 0.9 and 0 where the configuration has no such keys.

    Raises:
        UserError: for an unknown name.
    """
    name = cfg.SOLVER.LR_SCHEDULER_NAME
    if name not in SCHEDULES:
        hint = nearest(name, SCHEDULES)
        raise UserError(f"SOLVER.LR_SCHEDULER_NAME is {name!r}; expected {', '.join(SCHEDULES)}{hint}")
    if name != "WarmupPolyLR":
        return detectron2_scheduler(cfg, optimizer)
    # Imported here: the module registers networks that nothing else needs.
    from detectron2.projects.deeplab import build_lr_scheduler

    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.POLY_LR_POWER = cfg.SOLVER.get("POLY_LR_POWER", 0.9)
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = cfg.SOLVER.get("POLY_LR_CONSTANT_ENDING", 0.0)
    return build_lr_scheduler(cfg, optimizer)


def warm_up_warning(cfg: CfgNode) -> str:
    """One line about a run whose warm-up takes all of ``SOLVER.MAX_ITER``, empty for any other.

    In such a run Detectron2 moves from the warm-up's first rate to the schedule's last, which for a cosine is 0.
    """
    node = cfg.SOLVER
    if node.WARMUP_FACTOR >= 1:
        return ""
    return warm_up_alone(
        ("SOLVER.MAX_ITER", node.MAX_ITER),
        ("SOLVER.WARMUP_ITERS", node.WARMUP_ITERS),
        ("SOLVER.BASE_LR", node.BASE_LR),
    )
