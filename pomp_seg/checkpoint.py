"""Loading and saving segmenters: published checkpoints, backbone weights, and which prompt is used."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pomp_engine.checkpoint import ModelCheckpointer
from pomp_seg.clip import ClipAdapter

logger = logging.getLogger(__name__)


class SegmenterCheckpointer(ModelCheckpointer):
    """The common checkpointer, which protects the prompt and takes CLIP's weights from the file or from CLIP.

    A prompt inside a checkpoint never replaces a frozen one from ``PROMPT_CHECKPOINT``; one log line says which is used
    when they differ. A prompt that learns is taken from the checkpoint, and so is the CLIP with which it was trained;
    one log line says so when ``CLIP_PRETRAINED`` is another.
    """

    parts = ("backbone.", "sem_seg_head.", "clip_adapter.", "_region_clip_adapter.")

    def adapt_state(self, state: dict[str, Any]) -> list[str]:
        """See :class:`pomp_engine.checkpoint.ModelCheckpointer`."""
        current = self.model.state_dict()
        left_out: list[str] = []
        for name, adapter in self.model.named_modules():
            if isinstance(adapter, ClipAdapter):
                left_out += self._choose_prompt(f"{name}.prompt_learner.", adapter, state, current)
                clip = [key for key in current if key.startswith(f"{name}.clip_model.")]
                if not any(key in state for key in clip):  # a file without CLIP, which has its own weights
                    left_out += clip
                elif adapter.clip_is_given and _differ(clip, state, current):
                    logger.warning(
                        "CLIP: the checkpoint's own is used, which differs from CLIP_PRETRAINED; leave clip_model out "
                        "of the checkpoint to use the one that you name"
                    )
        # Only the loss reads it, and its length depends on NUM_CLASSES.
        key = "criterion.empty_weight"
        if key in state and key in current and state[key].shape != current[key].shape:
            del state[key]
            left_out.append(key)
        return left_out

    @staticmethod
    def _choose_prompt(prefix: str, adapter: ClipAdapter, state: dict[str, Any], current: dict[str, Any]) -> list[str]:
        learned = [f"{prefix}{name}" for name, _ in adapter.prompt_learner.named_parameters()]
        given = [key for key in learned if key in state]
        if adapter.prompt_learner.learns or not given:
            return []
        if _differ(given, state, current):
            logger.warning(
                "prompt: the one of PROMPT_CHECKPOINT is used; the checkpoint holds another, which is left out. Set "
                "PROMPT_CHECKPOINT to the checkpoint's own prompt to take it"
            )
        for key in given:
            del state[key]
        return given


def _differ(keys: Iterable[str], state: Mapping[str, Any], current: Mapping[str, Tensor]) -> bool:
    """Whether a file has another value of any of these weights than the model."""
    return any(
        key in state and not torch.equal(torch.as_tensor(state[key]).to(current[key]), current[key]) for key in keys
    )


def load_weights(model: nn.Module, file: str | Path) -> None:
    """Load a checkpoint, or backbone weights, into a segmenter; see :class:`SegmenterCheckpointer`.

    Raises:
        UserError: when the file is absent or damaged.
    """
    SegmenterCheckpointer(model).load(str(file))
