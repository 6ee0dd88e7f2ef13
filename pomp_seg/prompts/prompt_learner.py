"""Prompt learners: how class names become text features, with names of weights as in published checkpoints.

:class:`ClassFeatures` keeps the features of each name while nothing learns.

Sources: ZSSeg (arXiv 2112.14757) and POMP's copy of it, ``modeling/clip_adapter/text_prompt.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prompt_core.classifier import check_templates, encode_templates
from prompt_core.clip import Clip
from prompt_core.errors import UserError
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.text.tokens import TokenSequences
from prompt_core.text.tower import TextTower

LAYOUTS = ("separate", "joined")


class PromptLearner(nn.Module):
    """The common interface: names in, unit-norm features out.

    Attributes:
        read_from: the file that the learned vectors were read from; with one, a checkpoint need not hold them.
    """

    read_from: str = ""

    @property
    def learns(self) -> bool:
        """Whether features change in training, so that they may not be kept."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def connect(self, clip: Clip) -> None:
        """Copy from the text tower the parts that the state dict holds."""

    def forward(self, names: Sequence[str], encoder: PromptedTextEncoder) -> Tensor:
        """Features (N, E) of N names."""
        raise NotImplementedError


class TemplatePrompt(PromptLearner):
    """The mean over templates of unit-norm features, normalised again. Names stay as they are, underscores too."""

    def __init__(self, templates: Sequence[str]) -> None:
        """Raises UserError for no template, or one without ``{}``."""
        super().__init__()
        self.templates = tuple(check_templates(templates))

    def forward(self, names: Sequence[str], encoder: PromptedTextEncoder) -> Tensor:
        """Features (N, E) of N names."""
        return encode_templates(encoder, names, self.templates, keep_underscores=True)


class ContextPrompt(PromptLearner):
    """Learned vectors before, and for ZSSeg's own learner also after, the class name.

    The state dict also holds four token embeddings, as published ones do; nothing reads them.
    """

    start_signal: Tensor
    dot_signal: Tensor
    end_signal: Tensor
    pad_signal: Tensor

    def __init__(self, width: int, n_prefix: int, n_suffix: int, layout: str = "separate") -> None:
        """
        Args:
            width: D, of the text tower's token embeddings.
            layout: ``separate``: the full stop is a separate token and names are not changed (ZSSeg); ``joined``: name
                and full stop are tokenised together and underscores become spaces (POMP's pre-training).

        Raises:
            UserError: an unknown layout, or one that does not allow vectors after the name.
        """
        super().__init__()
        if layout not in LAYOUTS:
            raise UserError(f"unknown layout {layout!r} of prompts; expected {' or '.join(LAYOUTS)}")
        if layout == "joined" and n_suffix:
            raise UserError(f"PROMPT_SHAPE has {n_suffix} vectors after the name; the joined layout allows none")
        self.width, self.n_prefix, self.n_suffix, self.layout = width, n_prefix, n_suffix, layout
        for name in ("start_signal", "dot_signal", "end_signal", "pad_signal"):
            self.register_buffer(name, torch.zeros(1, width))

    def connect(self, clip: Clip) -> None:
        """Check the width, and fill the token embeddings in.

        Raises:
            UserError: when the text tower takes no learned context, or has another width.
        """
        tower, tokenizer = TextTower(clip), clip.tokenizer
        if tower.width != self.width:
            raise UserError(
                f"PROMPT_DIM is {self.width}, the text tower of {clip.name} has width {tower.width}; "
                "set MODEL.CLIP_ADAPTER.PROMPT_DIM and use a prompt that was learned with this CLIP"
            )
        ids = (tokenizer.sot_token_id, tokenizer.encode(".")[0], tokenizer.eot_token_id, 0)
        with torch.no_grad():
            rows = tower.embed(torch.tensor(ids, device=tower.device)).float()
            for buffer, row in zip(
                (self.start_signal, self.dot_signal, self.end_signal, self.pad_signal), rows, strict=True
            ):
                buffer.copy_(row[None])

    def context(self) -> Tensor:
        """All learned vectors (L, D), those before the name first."""
        raise NotImplementedError

    def forward(self, names: Sequence[str], encoder: PromptedTextEncoder) -> Tensor:
        """Features (N, E) of N names, differentiable in the context."""
        return encoder.encode_sequences(self._sequences(names, encoder), self.context())

    def _sequences(self, names: Sequence[str], encoder: PromptedTextEncoder) -> TokenSequences:
        if self.layout == "joined":
            return encoder.tokenizer.prompts(names, self.n_prefix)
        return encoder.tokenizer.separate_prompts(names, self.n_prefix, self.n_suffix)


class PompPrompt(ContextPrompt):
    """POMP's context ``ctx`` (L, D) before the name (arXiv 2304.04704)."""

    def __init__(self, width: int, n_ctx: int, layout: str = "separate") -> None:
        """Starts from random vectors of standard deviation 0.02."""
        super().__init__(width, n_ctx, 0, layout)
        self.ctx = _random_context(n_ctx, width)

    def context(self) -> Tensor:
        """(L, D)."""
        return self.ctx


class ZssegPrompt(ContextPrompt):
    """ZSSeg's own learned prompt: ``prefix_prompt`` before and ``suffix_prompt`` after the name; one may be absent."""

    def __init__(self, width: int, n_prefix: int, n_suffix: int) -> None:
        """Starts from random vectors of standard deviation 0.02."""
        super().__init__(width, n_prefix, n_suffix)
        self.prefix_prompt = _random_context(n_prefix, width) if n_prefix else None
        self.suffix_prompt = _random_context(n_suffix, width) if n_suffix else None

    def context(self) -> Tensor:
        """(n_prefix + n_suffix, D)."""
        parts: list[Tensor] = [part for part in (self.prefix_prompt, self.suffix_prompt) if part is not None]
        return torch.cat(parts) if parts else self.start_signal[:0]


def _random_context(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(count, width) * 0.02)


class ClassFeatures:
    """Text features by name.

    Args:
        learner: while it learns, names are encoded again at each call and the gradient reaches its vectors.
    """

    def __init__(self, learner: PromptLearner, encoder: PromptedTextEncoder) -> None:
        self.learner, self.encoder = learner, encoder
        self._kept: dict[str, Tensor] = {}
        self._version: tuple[object, ...] = ()

    def __call__(self, names: Sequence[str]) -> Tensor:
        """Unit-norm features (N, E)."""
        if self.learner.learns and torch.is_grad_enabled():
            return self.learner(names, self.encoder)
        version = self._now()
        if version != self._version:
            self._kept, self._version = {}, version
        missing = list(dict.fromkeys(name for name in names if name not in self._kept))
        if missing:
            with torch.no_grad():
                self._kept |= dict(zip(missing, self.learner(missing, self.encoder), strict=True))
        return torch.stack([self._kept[name] for name in names])

    def _now(self) -> tuple[object, ...]:
        """Changes when a loaded file, an optimiser or a move to another device changes what the features depend on."""
        text = getattr(self.encoder.clip.model, "text", self.encoder.clip.model)
        weight = next(text.parameters())
        return (
            weight.device,
            weight._version,
            *((id(vector), vector._version) for vector in self.learner.parameters()),
        )
