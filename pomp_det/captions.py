"""Captions of a batch as text features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor


class CaptionEncoder:
    """A frozen CLIP text tower, loaded when the first caption comes.

    Not a module: published checkpoints of caption runs hold the tower's weights, which need not be stored again. The
    published code takes ViT-B/32 whatever the class matrix is made with, so with POMP's ViT-B/16 matrix captions and
    class names lie in different spaces; ``MODEL.CAPTION_CLIP`` chooses another.
    """

    def __init__(self, name: str, pretrained: str | None, synchronise: bool = False) -> None:
        """
        Args:
            name: see :func:`prompt_core.load_clip`, as ``pretrained``.
            synchronise: captions of all processes are negatives of each other.
        """
        self.name, self.pretrained = name, pretrained
        self.synchronise = synchronise
        self._encoder: Any = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> CaptionEncoder:
        """From ``MODEL.CAPTION_CLIP`` and ``MODEL.SYNC_CAPTION_BATCH``."""
        node = cfg.MODEL.CAPTION_CLIP
        return cls(node.NAME, node.PRETRAINED or None, cfg.MODEL.SYNC_CAPTION_BATCH)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], device: torch.device) -> tuple[Tensor | None, int]:
        """Unit-norm features (N, E) of the captions, and the row of the first of them.

        With ``synchronise`` every process must call this in every step, those whose batch has no caption too (with an
        empty sequence), or the others wait for ever. The features are None when no process has a caption.
        """
        own = self._encode(captions, device) if captions else None
        if not self.synchronise or comm.get_world_size() == 1:
            return own, 0
        everyone = comm.all_gather(None if own is None else own.cpu())
        first = sum(len(each) for each in everyone[: comm.get_rank()] if each is not None)
        found = [each for each in everyone if each is not None]
        return (torch.cat(found).to(device) if found else None), first

    def _encode(self, captions: Sequence[str], device: torch.device) -> Tensor:
        if self._encoder is None:
            from prompt_core.clip import load_clip
            from prompt_core.text.encoder import PromptedTextEncoder

            self._encoder = PromptedTextEncoder(load_clip(self.name, self.pretrained, device))
        return self._encoder.encode_texts(list(captions)).float()
