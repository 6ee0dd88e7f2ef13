"""The frozen CLIP inside a segmenter, whose weights may come with the segmenter's checkpoint."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from prompt_core.clip import Clip, load_clip
from prompt_core.errors import UserError

# OpenAI's own names, as published files give them, and the open_clip architectures that compute the same.
OPENAI_NAMES = {
    "ViT-B/32": "ViT-B-32-quickgelu",
    "ViT-B/16": "ViT-B-16-quickgelu",
    "ViT-L/14": "ViT-L-14-quickgelu",
    "ViT-L/14@336px": "ViT-L-14-336-quickgelu",
    "RN50": "RN50-quickgelu",
    "RN101": "RN101-quickgelu",
    "RN50x4": "RN50x4-quickgelu",
    "RN50x16": "RN50x16-quickgelu",
    "RN50x64": "RN50x64-quickgelu",
}

logger = logging.getLogger(__name__)


class ClipSource:
    """A CLIP that is built at once and gets its weights when they are needed, unless a checkpoint brought them.

    So a published checkpoint of a segmenter, which holds CLIP too, needs no download.

    Attributes:
        clip: the model; until :meth:`ready` its weights may be random.
    """

    def __init__(self, name: str, pretrained: str = "") -> None:
        """
        Args:
            name: OpenAI's name (``ViT-B/16``) or one that :func:`prompt_core.load_clip` takes.
            pretrained: a tag or a file; empty for OpenAI's weights with OpenAI's names, and for ``mini``.

        Raises:
            UserError: an unknown architecture, no weights named, or a file that does not fit.
        """
        self.name = OPENAI_NAMES.get(name, name)
        if not pretrained and name in OPENAI_NAMES:
            pretrained = "openai"
        if not pretrained and name != "mini":
            raise UserError(
                f"CLIP_MODEL_NAME is {name!r} and CLIP_PRETRAINED is empty; give a tag or a file of weights"
            )
        self.pretrained = pretrained or None
        self._pending = pretrained != "" and self.name != "openai" and not Path(pretrained).is_file()
        with warnings.catch_warnings():
            if self._pending:
                _check_tag(self.name, pretrained)
                warnings.filterwarnings("ignore", message=".*weights are random")
            self.clip: Clip = load_clip(self.name, None if self._pending else self.pretrained)

    def loaded(self) -> None:
        """Say that a checkpoint has filled in the weights."""
        self._pending = False

    def ready(self) -> Clip:
        """The model with its weights.

        Raises:
            UserError: when they cannot be fetched.
        """
        if self._pending:
            device = self.clip.device
            weights = load_clip(self.name, self.pretrained).model.state_dict()
            self.clip.model.load_state_dict(weights)
            self.clip.model.to(device)
            self._pending = False
            logger.info("CLIP %s with weights %s", self.name, self.pretrained)
        return self.clip


def _check_tag(name: str, tag: str) -> None:
    import open_clip

    from prompt_core.errors import nearest

    tags: list[Any] = open_clip.list_pretrained_tags_by_model(name)
    if name in open_clip.list_models() and tag not in tags:
        raise UserError(f"CLIP_PRETRAINED {tag!r} is neither a file nor a tag of {name}{nearest(tag, tags)}")
