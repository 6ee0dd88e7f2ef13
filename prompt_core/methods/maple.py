"""MaPLe (arXiv 2210.03117): learned text tokens, and vision tokens that linear layers compute from them, per block.

Upstream: ``trainers/maple.py`` and its modified ``clip/model.py``. The text is the words "a photo of a" before the
name; the first M of them are learned, the others stay. At the inputs of blocks 1..J - 1 new text tokens replace the M
learned ones, each with its own linear layer to the vision tower. Widths come from the towers.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompt_core.methods.base import seeded
from prompt_core.methods.deep_text import DeepTextMethod
from prompt_core.methods.vision import check_depth, vision_transformer, vision_width
from prompt_core.text.tower import TextTower

if TYPE_CHECKING:
    from prompt_core.clip import Clip


class MaPLe(DeepTextMethod):
    """Text tokens (M, D) and (J - 1, M, D), and J linear layers D → W.

    Raises:
        UserError: a vision tower that is not an open_clip transformer, words of several tokens, more learned tokens
            than words, or more blocks than a tower has.
    """

    @dataclass(frozen=True)
    class Options:
        """The text before the name, how much of it and how many blocks are learned, and the seed."""

        n_ctx: int = 2  # M, how many of the words are learned
        words: str = "a photo of a"  # one token each; empty for random vectors alone
        depth: int = 3  # J, how many blocks have prompts; 0 for as many as both towers have
        seed: int = 0

    section: ClassVar[str] = "MAPLE"
    options: Options

    def __init__(self, clip: Clip, name: str = "maple", **options: Any) -> None:
        super().__init__(clip, name, **options)
        chosen = self.options
        blocks = min(len(vision_transformer(clip).transformer.resblocks), len(TextTower(clip).blocks))
        layers = check_depth(chosen.depth, blocks, "shorter", "METHOD.MAPLE.DEPTH")
        self.start_text(clip, chosen.n_ctx, chosen.words, layers, chosen.seed)
        width = self.text_context.shape[1]
        with seeded(chosen.seed):
            # As published, the layers of deeper blocks all start from the same values.
            first, deeper = (nn.Linear(width, vision_width(clip)) for _ in range(2))
        self.to_vision = nn.ModuleList([first, *(copy.deepcopy(deeper) for _ in range(layers - 1))])
        self.to_vision.to(self.text_context)

    def vision_tokens(self) -> Tensor:
        """(J, M, W) tokens of the vision tower."""
        contexts = [self.text_context, *self.deep_text_context]
        return torch.stack([layer(context) for layer, context in zip(self.to_vision, contexts, strict=True)])
