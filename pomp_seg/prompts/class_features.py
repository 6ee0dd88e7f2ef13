"""Features of class names, encoded once for each name and kept while nothing learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pomp_seg.prompts.prompt_learner import PromptLearner
from prompt_core.text.encoder import PromptedTextEncoder


class ClassFeatures:
    """Text features by name.

    Args:
        learner: where it learns, names are encoded again at each call and the gradient reaches its vectors.
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
        """Changes when a loaded file, an optimiser or a move to another device touches what the features come from."""
        weight = self.encoder.tower.token_embedding.weight
        return (weight.device, weight._version, *((id(each), each._version) for each in self.learner.parameters()))
