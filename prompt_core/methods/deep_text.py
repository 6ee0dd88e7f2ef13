"""What MaPLe and IVLP share: learned text tokens before fixed words and the name, new ones at deeper blocks.

Upstream: ``MultiModalPromptLearner`` and ``VLPromptLearner`` of ``muzairkhattak/multimodal-prompt-learning``, and its
modified ``clip/model.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from prompt_core.errors import UserError
from prompt_core.methods.base import Method, Reads, random_vectors, selected_names
from prompt_core.methods.vision import vision_prompts
from prompt_core.prompt import SoftPrompt
from prompt_core.text.name_lists import keeps_underscores
from prompt_core.text.tower import TextTower

if TYPE_CHECKING:
    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary


class DeepTextMethod(Method):
    """Text tokens (M, D), and (J - 1, M, D) that replace them at the inputs of blocks 1..J - 1; vision tokens."""

    reads: ClassVar[Reads] = "images"

    def start_text(self, clip: Clip, n_ctx: int, words: str, layers: int, seed: int) -> None:
        """Make ``text_context``, ``deep_text_context`` and the fixed words.

        Args:
            n_ctx: M, how many tokens are learned.
            words: the text before the name, one token each: the first M are where learning starts, the others stay.
                Without any the M tokens start from random vectors, and the name follows them.
            layers: J.

        Raises:
            UserError: words of several tokens, or more learned tokens than words.
        """
        if words:
            start = SoftPrompt.from_words(clip, words).context.detach()  # (L, D)
            if not 1 <= n_ctx <= len(start):
                key = f"METHOD.{self.section}.N_CTX"
                raise UserError(f"{key} is {n_ctx}; expected 1 to {len(start)}, the words of {words!r}")
            deep = random_vectors(layers - 1, n_ctx, start.shape[1], seed=seed).to(start)
        elif n_ctx < 1:
            raise UserError(f"METHOD.{self.section}.N_CTX is {n_ctx}; expected at least 1")
        else:
            tower = TextTower(clip)
            start, *more = random_vectors(layers, n_ctx, tower.width, seed=seed).to(tower.token_embedding.weight)
            deep = torch.stack(more) if more else start.new_zeros(0, *start.shape)
        self.text_context = nn.Parameter(start[:n_ctx].clone())
        self.deep_text_context = nn.Parameter(deep)
        # Fixed words are not part of the state: they are CLIP's own.
        self.register_buffer("fixed", start[n_ctx:].clone(), persistent=False)

    def vision_tokens(self) -> Tensor | None:
        """(J, M, W) tokens of the vision tower, or None for the plain tower."""
        raise NotImplementedError

    def image_features(self, inputs: Tensor) -> Tensor:
        tokens = self.vision_tokens()
        if tokens is None:
            return self.clip.image_features(inputs)
        with vision_prompts(self.clip, tokens):
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
        keep = keeps_underscores(vocabulary)
        return self.encoder.encode_context(context, names, "end", deep, chunk_size, reference, keep)
