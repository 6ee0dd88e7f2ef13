"""Class names and prompts as users give them to a trained segmenter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pomp_seg.checks import register_configured
from pomp_seg.classes import dataset_classes
from pomp_seg.clip import OPENAI_NAMES
from pomp_seg.data.label_sets import LABEL_SETS, label_set
from pomp_seg.data.registration import registered_metadata
from prompt_core.errors import UserError
from prompt_core.prompt import SoftPrompt
from prompt_core.vocabulary import Vocabulary, plain_name, read_vocabulary

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def read_words(given: str | Sequence[str] | Vocabulary) -> list[str]:
    """Class names that a user asks for, see :meth:`pomp_seg.predictor.OpenVocabularySegmenter.set_vocabulary`.

    Raises:
        UserError: an absent file, a class matrix, blank or repeated names.
    """
    if not isinstance(given, str):
        names = list(getattr(given, "names", given))
        return [name.strip() for name in Vocabulary(names, source="vocabulary").check().names]
    if given in LABEL_SETS:
        return list(label_set(given).vocabulary.names)
    if Path(given).suffix in (".npy", ".safetensors"):
        raise UserError(
            f"vocabulary {given} is a class matrix; a segmenter encodes names itself: give names, or a file of names"
        )
    return [name.strip() for name in read_vocabulary(given).names]


def training_names(cfg: CfgNode) -> set[str] | None:
    """Plain names of the classes that ``DATASETS.TRAIN`` shows a segmenter; None where they are not known here."""
    names: set[str] = set()
    try:
        register_configured(cfg)
        for dataset in cfg.DATASETS.TRAIN:
            registered_metadata(dataset)
            classes = dataset_classes(dataset)
            flags = classes.seen or (True,) * len(classes.names)
            names |= {plain_name(name) for name, seen in zip(classes.names, flags, strict=True) if seen}
    except UserError as error:
        logger.warning("which classes training saw is not known, all count as unseen: %s", error)
        return None
    return names or None


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
            "--prompt is not clear with MODEL.CLIP_ADAPTER.SEPERATE_ADAPTER True, where regions have a prompt of their "
            "own; set PROMPT_LEARNER and PROMPT_CHECKPOINT of both in the configuration"
        )
    if "{}" in prompt:
        node.PROMPT_LEARNER, node.PROMPT_CHECKPOINT = "predefined", ""
        node.PREDEFINED_PROMPT_TEMPLATES = prompt.split("|")
        return cfg
    found = SoftPrompt.load(prompt)
    clip = OPENAI_NAMES.get(node.CLIP_MODEL_NAME, node.CLIP_MODEL_NAME)
    learned_with = found.metadata.get("clip")
    if learned_with and learned_with != clip:
        raise UserError(f"prompt {prompt} was learned with CLIP {learned_with}; the segmenter's is {clip}")
    node.PROMPT_LEARNER, node.PROMPT_CHECKPOINT = "pomp", prompt
    # Another width than that of the text tower is told when the segmenter is built.
    node.PROMPT_SHAPE, node.PROMPT_DIM = (found.n_ctx, 0), int(found.context.shape[-1])
    return cfg
