"""From ``MODEL.CLIP_ADAPTER`` to a prompt learner, with its checkpoint loaded; and replacing its prompt."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from pomp_seg.clip import ClipSource
from pomp_seg.prompts.prompt_learner import PompPrompt, PromptLearner, TemplatePrompt, ZssegPrompt
from prompt_core.data.catalog.hand_written import imagenet_templates
from prompt_core.errors import UserError, nearest
from prompt_core.prompt import SoftPrompt
from prompt_core.safe_load import load_restricted
from prompt_core.towers.origin import Origin, stated_origin

LEARNERS = ("predefined", "imagenet", "vild", "learnable", "pomp", "pomp_tuned")

# ViLD's list as ZSSeg uses it (``modeling/clip_adapter/utils.py``): with and without full stops as given there.
_SIZES = ("small", "medium", "large")
VILD_TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)

logger = logging.getLogger(__name__)


def build_prompt_learner(node: CfgNode, tuning: bool = False) -> PromptLearner:
    """The prompt learner of a ``CLIP_ADAPTER`` section.

    ``learnable``, ``pomp`` and ``pomp_tuned`` read ``PROMPT_CHECKPOINT`` where it is set: a prompt file of this
    project, a published ``.pth.tar`` prompt, or the output of a prompt tuning.

    Args:
        tuning: loaded vectors continue to learn (stage 1). Otherwise loaded vectors are frozen, and vectors without a
            checkpoint learn together with the segmenter, as published.

    Raises:
        UserError: an unknown learner; a checkpoint that is absent or does not fit.
    """
    name = node.PROMPT_LEARNER
    if name == "predefined":
        return TemplatePrompt(node.PREDEFINED_PROMPT_TEMPLATES)
    if name == "imagenet":
        return TemplatePrompt(imagenet_templates())
    if name == "vild":
        return TemplatePrompt(VILD_TEMPLATES)
    if name not in LEARNERS:
        raise UserError(
            f"CLIP_ADAPTER.PROMPT_LEARNER is {name!r}; expected {', '.join(LEARNERS)}{nearest(name, LEARNERS)}"
        )
    n_prefix, n_suffix = _shape(node)
    learner: PompPrompt | ZssegPrompt
    if name == "learnable":
        learner = ZssegPrompt(node.PROMPT_DIM, n_prefix, n_suffix)
    else:
        learner = PompPrompt(node.PROMPT_DIM, n_prefix, node.PROMPT_LAYOUT)
    if node.PROMPT_CHECKPOINT:
        load_prompt(learner, node.PROMPT_CHECKPOINT)
        learner.requires_grad_(tuning)
    return learner


def use_prompt(cfg: CfgNode, prompt: str) -> CfgNode:
    """A configuration whose segmenter encodes names with another prompt.

    Args:
        prompt: a prompt file, or templates with ``{}`` separated by ``|``; empty for that of the configuration.

    Raises:
        UserError: a file that holds no shared prompt, or one of another CLIP; a segmenter with a second prompt.
    """
    if not prompt:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    node = cfg.MODEL.CLIP_ADAPTER
    if node.SEPERATE_ADAPTER:
        raise UserError(
            "--prompt is ambiguous with MODEL.CLIP_ADAPTER.SEPERATE_ADAPTER True, where regions have a prompt of their "
            "own; set PROMPT_LEARNER and PROMPT_CHECKPOINT of both in the configuration"
        )
    if "{}" in prompt:
        node.PROMPT_LEARNER, node.PROMPT_CHECKPOINT = "predefined", ""
        node.PREDEFINED_PROMPT_TEMPLATES = prompt.split("|")
        return cfg
    soft_prompt = SoftPrompt.load(prompt)
    own = Origin(*ClipSource.weights_of(node.CLIP_MODEL_NAME, node.CLIP_PRETRAINED))
    learned_with = stated_origin(soft_prompt.metadata)
    if learned_with is not None and learned_with.differs_from(own):
        raise UserError(
            f"prompt {prompt} was learned with {learned_with}; the segmenter's is {own.clip}; give a prompt that was "
            "learned with it, or templates such as 'a photo of a {}.'"
        )
    node.PROMPT_LEARNER, node.PROMPT_CHECKPOINT = "pomp", prompt
    # A width other than the text tower's is reported when the segmenter is built.
    node.PROMPT_SHAPE, node.PROMPT_DIM = (soft_prompt.n_ctx, 0), int(soft_prompt.context.shape[-1])
    return cfg


def load_prompt(learner: PompPrompt | ZssegPrompt, file: str | Path) -> None:
    """Copy the learned vectors of a file into ``learner``.

    Raises:
        UserError: when the file is absent, holds no such vectors, or vectors of another shape.
    """
    vectors = _vectors(Path(file), learner)
    for key, parameter in learner.named_parameters():
        if key not in vectors:
            raise UserError(f"PROMPT_CHECKPOINT {file} holds no {key!r}; expected a prompt of the same learner")
        if vectors[key].shape != parameter.shape:
            raise UserError(
                f"PROMPT_CHECKPOINT {file}: {key} is {tuple(vectors[key].shape)}, PROMPT_SHAPE and PROMPT_DIM ask for "
                f"{tuple(parameter.shape)}"
            )
        with torch.no_grad():
            parameter.copy_(vectors[key])
    learner.read_from = str(file)
    logger.info("prompt: %s", file)


def _shape(node: CfgNode) -> tuple[int, int]:
    shape = tuple(node.PROMPT_SHAPE)
    if len(shape) != 2 or not all(isinstance(count, int) and count >= 0 for count in shape):
        raise UserError(f"CLIP_ADAPTER.PROMPT_SHAPE is {node.PROMPT_SHAPE!r}; two counts of vectors are expected")
    return shape[0], shape[1]


def _vectors(file: Path, learner: PompPrompt | ZssegPrompt) -> dict[str, Tensor]:
    """Learned vectors by the names that the learner has for them."""
    if not file.is_file():
        raise UserError(
            f"PROMPT_CHECKPOINT {file} does not exist; set MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT to a prompt file or "
            "the output of a prompt tuning, or to '' for the prompt inside a segmenter's checkpoint"
        )
    if file.suffix != ".safetensors":
        held: Any = load_restricted(file)
        state = held.get("model") if isinstance(held, Mapping) else None
        if isinstance(state, Mapping):  # a prompt tuning: clip_adapter.prompt_learner.ctx
            marked = {str(key).partition("prompt_learner.")[2]: value for key, value in state.items()}
            return {key: value for key, value in marked.items() if key and isinstance(value, Tensor)}
    if isinstance(learner, ZssegPrompt):
        raise UserError(
            f"PROMPT_CHECKPOINT {file} is not the output of a prompt tuning; the learner 'learnable' reads these"
        )
    prompt = SoftPrompt.load(file)
    if prompt.class_specific or prompt.deep_context is not None or prompt.position != "end":
        raise UserError(
            f"PROMPT_CHECKPOINT {file} holds a class-specific or deep prompt, or one at position {prompt.position!r}; "
            "a shared context (L, D) before the name is expected"
        )
    return {"ctx": prompt.context.detach()}
