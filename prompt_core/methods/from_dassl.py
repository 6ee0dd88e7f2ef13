"""Methods from checkpoints of trainers on Dassl (:mod:`prompt_core.dassl.checkpoints`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prompt_core.config import load_config
from prompt_core.dassl.checkpoints import Learned, checkpoint_file, read_checkpoint
from prompt_core.errors import UserError
from prompt_core.methods.base import Method
from prompt_core.methods.cocoop import CoCoOp
from prompt_core.methods.deep_text import DeepTextMethod
from prompt_core.methods.ivlp import IVLP
from prompt_core.methods.maple import MaPLe
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.methods.vpt import VPT
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.text.tower import TextTower

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip

_MORE_THAN_PROMPTS: dict[str, type[Method]] = {"cocoop": CoCoOp, "maple": MaPLe, "vpt": VPT, "ivlp": IVLP}
# Files in half precision, or averages of many epochs in it (PromptSRC), come this close to CLIP's own numbers.
TOLERANCE = 0.02


def load_from_dassl(path: str | Path, clip: Clip, cfg: CfgNode | None = None) -> Method:
    """A method of a checkpoint, or of the folder of its run, in evaluation mode.

    Args:
        cfg: see :func:`method_of`.

    Raises:
        UserError: an absent, damaged or unknown file, or one that was learned with another CLIP or other words.
    """
    path = checkpoint_file(path)
    return method_of(read_checkpoint(path), path, clip, load_config() if cfg is None else cfg)


def method_of(found: Learned, path: Path, clip: Clip, cfg: CfgNode) -> Method:
    """The method of a checkpoint that was read from ``path``, in evaluation mode.

    Args:
        cfg: what the file does not say: ``PROMPT.POSITION``, ``METHOD.MAPLE.WORDS``, ``METHOD.IVLP.WORDS``,
            ``METHOD.VPT.TEMPLATE``; by default the published ones.

    Raises:
        UserError: tensors that do not fit ``clip``, or that were learned with another one or other words.
    """
    _check_clip(found, clip, path)
    if found.method == "coop":
        prompt = SoftPrompt.from_checkpoint(found, path, cfg.PROMPT.POSITION)
        return SoftPromptMethod.around(PromptedTextEncoder(clip), prompt).to(clip.device).eval()
    kind = _MORE_THAN_PROMPTS[found.method]
    options: dict[str, Any] = dict(found.options)
    if issubclass(kind, DeepTextMethod):
        words = cfg.METHOD[kind.section].WORDS
        # The published trainers leave the words out where more tokens are learned than there are words.
        options["words"] = words if options["n_ctx"] <= len(words.replace("_", " ").split()) else ""
    elif kind is VPT:
        options["template"] = cfg.METHOD.VPT.TEMPLATE
    method = kind(clip, found.method, **options)
    if isinstance(method, DeepTextMethod):
        _check_words(found, method, path)
    method.load_tensors(found.tensors, path)
    return method.to(clip.device).eval()


def _check_clip(found: Learned, clip: Clip, path: Path) -> None:
    """Raises UserError where a frozen part in the file is not that of ``clip``."""
    tower = TextTower(clip)
    visual: Any = getattr(clip.model, "visual", None)
    ours = {
        "image_encoder.class_embedding": getattr(visual, "class_embedding", None),
        "image_encoder.conv1.weight": getattr(getattr(visual, "conv1", None), "weight", None),
        "text_encoder.positional_embedding": tower.positional_embedding,
        "token_prefix": tower.token_embedding.weight[clip.tokenizer.sot_token_id],
    }
    for key, value in ours.items():
        theirs = found.clip_parts.get(key)
        if theirs is None:
            continue
        if key == "token_prefix":
            theirs = theirs[0, 0]
        if value is None or not _near(theirs, value):
            raise UserError(
                f"{path} was learned with another CLIP than {clip.name}, {clip.pretrained} ({key} differs); "
                "give its own with --clip and --pretrained"
            )


def _check_words(found: Learned, method: DeepTextMethod, path: Path) -> None:
    """Raises UserError where the text behind the learned tokens does not begin with the method's fixed words."""
    suffix = found.clip_parts.get("token_suffix")  # (N, 76 - M, D)
    fixed = method.fixed
    assert isinstance(fixed, Tensor)
    if suffix is None or not len(fixed) or all(_near(of_class[: len(fixed)], fixed) for of_class in suffix):
        return
    key = f"METHOD.{method.section}.WORDS"
    raise UserError(
        f"{path} was learned with other words before the name than {method.options.words!r}; give them as {key}, or "
        "'' for none"
    )


def _near(theirs: Tensor, ours: Tensor) -> bool:
    if theirs.shape != ours.shape:
        return False
    ours = ours.detach().float().cpu()
    return bool(torch.linalg.vector_norm(theirs.float() - ours) <= TOLERANCE * torch.linalg.vector_norm(ours))
