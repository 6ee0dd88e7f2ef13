"""IVLP, independent prompts of both towers: text tokens as MaPLe's, vision tokens as VPT's, learned apart.

Upstream: ``trainers/independentVL.py`` of ``muzairkhattak/multimodal-prompt-learning``, the baseline of MaPLe (arXiv
2210.03117). PromptSRC (arXiv 2307.06948) learns the same tokens with further losses, which are not here; its
checkpoints load as this method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from prompt_core.errors import UserError
from prompt_core.methods.base import random_vectors
from prompt_core.methods.deep_text import DeepTextMethod
from prompt_core.methods.vision import check_depth, vision_transformer, vision_width
from prompt_core.text.tower import TextTower

if TYPE_CHECKING:
    from prompt_core.clip import Clip


class IVLP(DeepTextMethod):
    """Text tokens (M, D) and (J - 1, M, D), and vision tokens (J', M', W).

    Raises:
        UserError: a vision tower that is not an open_clip transformer, words of several tokens, more learned tokens
            than words, or more blocks than a tower has.
    """

    @dataclass(frozen=True)
    class Options:
        """Tokens and blocks of each tower, the text before the name, and the seed."""

        n_ctx: int = 2  # M, how many of the words are learned
        words: str = "a photo of a"  # one token each; empty for random vectors alone
        depth: int = 9  # J, how many blocks of the text tower have tokens of their own; 0 for all
        tokens: int = 2  # M', per block of the vision tower; 0 for none, language prompts alone
        vision_depth: int = 9  # J', how many blocks of the vision tower; 0 for all
        seed: int = 0

    section: ClassVar[str] = "IVLP"
    options: Options

    def __init__(self, clip: Clip, name: str = "ivlp", **options: Any) -> None:
        super().__init__(clip, name, **options)
        chosen = self.options
        if chosen.tokens < 0:
            raise UserError(f"METHOD.IVLP.TOKENS is {chosen.tokens}; expected at least 0")
        layers = check_depth(chosen.depth, len(TextTower(clip).blocks), "text", "METHOD.IVLP.DEPTH")
        self.start_text(clip, chosen.n_ctx, chosen.words, layers, chosen.seed)
        self.tokens: nn.Parameter | None = None
        if chosen.tokens:
            blocks = len(vision_transformer(clip).transformer.resblocks)
            layers = check_depth(chosen.vision_depth, blocks, "vision", "METHOD.IVLP.VISION_DEPTH")
            # Not the text tokens' numbers again, where widths agree.
            seed = chosen.seed + 1
            self.tokens = nn.Parameter(random_vectors(layers, chosen.tokens, vision_width(clip), seed=seed))

    def vision_tokens(self) -> Tensor | None:
        """(J', M', W) tokens of the vision tower; None without any."""
        return self.tokens
