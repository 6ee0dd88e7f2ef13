"""MaPLe (arXiv 2210.03117): learned text tokens, and vision tokens that linear layers compute from them, per block.

Upstream: ``trainers/maple.py`` and its modified ``clip/model.py``. The text is the words "a photo of a" before the
name; the first M of them are learned, the others stay. At the inputs of blocks 1..J - 1 new text tokens replace the M
learned ones, each with its own linear layer to the vision tower. Widths come from the towers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompt_core.errors import UserError
from prompt_core.methods.base import Method, Reads, random_vectors, seeded, selected_names
from prompt_core.methods.vision import check_depth, vision_prompts, vision_transformer, vision_width
from prompt_core.prompt import SoftPrompt
from prompt_core.text.tower import TextTower

if TYPE_CHECKING:
    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary


class MaPLe(Method):
    """Text tokens (M, D) and (J - 1, M, D), and J linear layers D → W.

    Raises:
        UserError: a vision tower that is not an open_clip transformer, words of several tokens, more learned tokens
            than words, or more blocks than a tower has.
    """

    @dataclass(frozen=True)
    class Options:
        """The text before the name, how much of it and how many blocks are learned, and the seed."""

        n_ctx: int = 2  # M, how many of the words are learned
        words: str = "a photo of a"  # one token each
        depth: int = 3  # J, how many blocks have prompts; 0 for as many as both towers have
        seed: int = 0

    section: ClassVar[str] = "MAPLE"
    reads: ClassVar[Reads] = "images"
    options: Options

    def __init__(self, clip: Clip, name: str = "maple", **options: Any) -> None:
        super().__init__(clip, name, **options)
        n_ctx, words, seed = self.options.n_ctx, self.options.words, self.options.seed
        blocks = min(len(vision_transformer(clip).transformer.resblocks), len(TextTower(clip).blocks))
        layers = check_depth(self.options.depth, blocks, "shorter", "METHOD.MAPLE.DEPTH")
        start = SoftPrompt.from_words(clip, words).context.detach()  # (L, D)
        if not 1 <= n_ctx <= len(start):
            raise UserError(f"METHOD.MAPLE.N_CTX is {n_ctx}; expected 1 to {len(start)}, the words of {words!r}")
        width = start.shape[1]
        self.text_context = nn.Parameter(start[:n_ctx].clone())
        self.deep_text_context = nn.Parameter(random_vectors(layers - 1, n_ctx, width, seed=seed).to(start))
        with seeded(seed):
            self.to_vision = nn.ModuleList(nn.Linear(width, vision_width(clip)) for _ in range(layers))
        self.to_vision.to(start)
        # Fixed words are not part of the state: they are CLIP's own.
        self.register_buffer("fixed", start[n_ctx:].clone(), persistent=False)

    def vision_tokens(self) -> Tensor:
        """(J, M, W) tokens of the vision tower."""
        contexts = [self.text_context, *self.deep_text_context]
        return torch.stack([layer(context) for layer, context in zip(self.to_vision, contexts, strict=True)])

    def image_features(self, inputs: Tensor) -> Tensor:
        with vision_prompts(self.clip, self.vision_tokens()):
            return self.clip.image_features(inputs)

    def class_features(
        self,
        vocabulary: Vocabulary | Sequence[str],
        rows: Tensor | None = None,
        image_features: Tensor | None = None,
        chunk_size: int | None = None,
        reference: bool = False,
    ) -> Tensor:
        assert isinstance(self.fixed, Tensor)
        context = torch.cat([self.text_context, self.fixed])  # (L, D)
        names = selected_names(vocabulary, rows)
        deep = self.deep_text_context if len(self.deep_text_context) else None
        return self.encoder.encode_context(context, names, "end", deep, chunk_size, reference)
