"""Weights of a trained model, for evaluation and prediction."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from torch import nn

from prompt_core.errors import UserError
from prompt_core.fetch.places import PACKAGE
from prompt_core.runs.finite import first_not_finite

_MARK = 0x7FC0_5EED  # the bits of a quiet NaN
_logger = logging.getLogger(__name__)


def load_trained(model: nn.Module, cfg: CfgNode, load: Callable[[nn.Module, str], object], what: str = "model") -> None:
    """Load ``MODEL.WEIGHTS``, which must hold every weight that learns, or that a part ``learned_before``.

    Published configurations name the weights of a backbone. With these the rest would stay random, and nothing would
    tell. ``MODEL.RANDOM_WEIGHTS`` allows that, and no weights at all. A model in which nothing learns needs none.

    Args:
        load: called with the model and the file.
        what: ``detector`` or ``segmenter``, for messages.

    Raises:
        UserError: no weights, some that are missing or not finite, or anything that ``load`` raises.
    """
    weights = str(cfg.MODEL.WEIGHTS)
    wanted = f"give the checkpoint of a trained {what}"
    if cfg.MODEL.RANDOM_WEIGHTS:
        _logger.warning("MODEL.RANDOM_WEIGHTS: what %s does not hold stays random", weights or "no file")
        if weights:
            load(model, weights)
        return
    learned = learned_weights(model)
    if not weights:
        if not learned:
            return
        raise UserError(f"MODEL.WEIGHTS is empty; {wanted}")
    for weight in learned.values():
        _mark(weight)
    try:
        load(model, weights)
    except UserError as error:
        raise UserError(f"{error}; {wanted}") if weights.startswith(PACKAGE) else error from error
    absent = [name for name, weight in learned.items() if _is_marked(weight)]
    if absent:
        raise UserError(
            f"weights {weights} lack {len(absent)} of {len(learned)} learned weights, the first is {absent[0]}; "
            f"{wanted} of this configuration"
        )
    if (found := first_not_finite(learned)) is not None:
        raise UserError(
            f"weights {weights} hold NaN or infinity, the first in {found}: their training diverged; {wanted}"
        )


def _mark(weight: nn.Parameter) -> None:
    """Fill a weight with a NaN that no training makes, where it has one."""
    with torch.no_grad():
        weight.fill_(torch.nan)
        if weight.dtype == torch.float32:
            weight.view(torch.int32).fill_(_MARK)


def _is_marked(weight: nn.Parameter) -> bool:
    """Whether some of a weight was not loaded."""
    if weight.dtype == torch.float32:
        return bool((weight.detach().view(torch.int32) == _MARK).any())
    return bool(weight.isnan().any())


def learned_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that learn, but for those that were read from a file of their own (``read_from``), such as a prompt.

    Those of parts that learned before (``learned_before``) count, although they are frozen.
    """
    elsewhere, before = (
        {id(weight) for part in model.modules() if getattr(part, mark, False) for weight in part.parameters()}
        for mark in ("read_from", "learned_before")
    )
    return {
        name: weight
        for name, weight in model.named_parameters()
        if (weight.requires_grad or id(weight) in before) and id(weight) not in elsewhere
    }
