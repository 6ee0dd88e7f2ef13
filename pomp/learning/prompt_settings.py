"""The settings of learning from a handful of corrections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_core.config import load_config
from prompt_core.errors import UserError
from prompt_core.methods.registry import method_class

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

TEMPLATE = "a photo of a {}."  # what a prompt starts from and is compared with
# A hundred photos are few: the prompt starts at the template, other names are held there, and steps are small.
DEFAULTS = {
    "PROMPT.INIT": "a photo of a",
    "DATA.VOCABULARY": "imagenet21k",
    "AUGMENT.STORED_VIEWS": 2,
    "AUGMENT.VIEWS": 2,
    "AUGMENT.SCALE": (0.4, 1.0),
    "AUGMENT.RAND_AUGMENT": False,
    "LOSS.NUM_CLASSES": 128,
    "LOSS.ANCHOR": 4.0,
    "LOSS.ANCHOR_NAMES": 64,
    "OPTIM.LR": 0.02,
    "OPTIM.EPOCHS": 12,
    "OPTIM.WARMUP_EPOCHS": 1,
    "OPTIM.WARMUP_LR": 1e-3,
    "OPTIM.BATCH": 32,
    "OPTIM.CLIP_GRAD_NORM": 1.0,
}


def learning_config(method: str, clip: tuple[str, str], seed: int, overrides: Sequence[str] = ()) -> CfgNode:
    """The configuration of :mod:`prompt_core.config` for corrections.

    Args:
        method: a method that learns class features by steps, on features of the frozen image tower.
        clip: architecture and weights.
        overrides: ``KEY VALUE`` pairs, which win.

    Raises:
        UserError: an unknown method or key, a method that learns otherwise.
    """
    kind = method_class(method)
    if kind.learned_by != "steps" or kind.reads != "features":
        raise UserError(
            f"method {method} does not learn text on a frozen image tower; pomp, coop and cocoop learn from "
            "corrections, tools/pretrain_prompt.py has the others"
        )
    own = {"METHOD.NAME": method, "MODEL.NAME": clip[0], "MODEL.PRETRAINED": clip[1], "SEED": seed}
    if method != "pomp":
        own |= {"LOSS.NUM_CLASSES": 0, "LOSS.ANCHOR": 0.0}  # the words among themselves, as these methods are published
    settings = [f"{key}={value}" for key, value in {**DEFAULTS, **own}.items()]
    return load_config(None, [*settings, *overrides])
