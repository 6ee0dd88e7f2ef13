"""A short run of learning in each of several ranks, on made-up images and a tiny model in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prompt_core.negatives import HardSampler, UniformSampler
from prompt_core.ranks.ranks import Ranks
from prompt_core.training.anchor import Anchor
from prompt_core.training.loop import LearningState, StepReport, learn
from prompt_core.training.step import LearningSettings
from prompt_core.vocabulary import Vocabulary

NAMES = ["cat", "red fox", "old_oak", "crane", "cap (headwear)", "crane", "tree frog of the woods", "ax", "gown"]


class MadeUpImages:
    """24 images of some classes, or their features, as a method reads them; drawn by the generator of the step."""

    def __init__(self, method: Any, views: int = 1) -> None:
        generator = torch.Generator().manual_seed(3)
        self.labels, self.views = np.arange(24) % 8, views
        pixels = torch.randn(8, 3, 32, 32, generator=generator)[self.labels]
        pixels = (pixels + 0.3 * torch.randn(24, 3, 32, 32, generator=generator)).to(method.clip.dtype)
        self.inputs = pixels
        if method.reads != "images":
            with torch.no_grad():
                self.inputs = method.clip.image_features(pixels, normalise=method.reads == "features")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, chosen: np.ndarray, epoch: int, generator: torch.Generator, own: range | None = None
    ) -> tuple[Tensor, Tensor]:
        """Each view is the image times a random number near 1."""
        factors = 1 + 0.1 * torch.rand(self.views, len(chosen), generator=generator)
        rows = np.arange(len(chosen)) if own is None else np.arange(own.start, own.stop)
        views = [
            factor[rows].reshape(-1, *[1] * (self.inputs.dim() - 1)) * self.inputs[chosen[rows]] for factor in factors
        ]
        return torch.cat(views), torch.from_numpy(self.labels[chosen]).repeat(self.views)

    def expect(self, chosen: np.ndarray, epoch: int) -> None:
        """Nothing is prepared."""


def learned(
    name: str,
    settings: LearningSettings,
    ranks: Ranks,
    clip: Any,
    make_method: Callable[..., Any],
    hard: bool = False,
    anchor: Anchor | None = None,
    state: LearningState | None = None,
    start: dict[str, Tensor] | None = None,
    steps: int | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """What a method has learned.

    Args:
        state: where to go on from, with what was learned until then, ``start``; updated in place.
        steps: after how many to stop.
    """
    method = make_method(name, clip, **options)
    if start is not None:
        method.state_module.load_state_dict(start)
    vocabulary = Vocabulary(NAMES, ids=list(range(len(NAMES))))
    sampler = HardSampler(len(NAMES)) if hard else UniformSampler(len(NAMES))
    done = 0

    def run() -> Iterator[StepReport]:
        images = MadeUpImages(method, settings.views)
        state_of_run = LearningState() if state is None else state
        return learn(
            method,
            vocabulary,
            images,
            settings,
            sampler,
            state_of_run,
            lambda: done == steps,
            anchor=anchor,
            ranks=ranks,
        )

    for _ in run():
        done += 1
    return {key: value.detach().clone() for key, value in method.state_module.state_dict().items()}
