"""Samplers of negative classes: uniform, frequency-weighted, or hard for the images of the batch.

Only uniform draws work in the published code; its ``hard`` and ``easy`` modes read a memory bank that is never created.
All samplers here draw without replacement, from an explicit generator, and return how likely each class was to be
drawn, so that the local correction ``ln`` keeps the sampled sum an unbiased estimate of the full one.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from prompt_core.errors import UserError


class ClassSampler(Protocol):
    """Draws ``count`` different class ids; the second result is their log inclusion probability, None if uniform."""

    def __call__(
        self, count: int, generator: torch.Generator, image_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]: ...


class UniformSampler:
    """Uniform without replacement over N classes (POMP's local contrast)."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(
        self, count: int, generator: torch.Generator, image_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """``count`` ids (M,), and None. Raises UserError when ``count`` exceeds the number of classes."""
        _check_count(count, self.num_classes)
        return torch.randperm(self.num_classes, generator=generator)[:count], None


class WeightedSampler:
    """Without replacement, each draw in proportion to the remaining weights (for instance class frequencies).

    Args:
        weights: (N,) positive weights of any scale.
    """

    def __init__(self, weights: Tensor) -> None:
        if weights.dim() != 1 or not bool(((weights > 0) & torch.isfinite(weights)).all()):
            raise UserError("sampling weights must be a vector of positive numbers, one per class")
        self.weights = weights.double().cpu()

    def __call__(
        self, count: int, generator: torch.Generator, image_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """``count`` ids (M,) and log inclusion probabilities (M,)."""
        _check_count(count, len(self.weights))
        return draw_weighted(self.weights, count, generator)


class HardSampler:
    """Classes close to the batch's images, by the class features of the current prompt.

    Weights are the mean over the batch of a softmax over all classes at ``temperature``; ``share`` of the mass is
    spread evenly, so that every class can be drawn. :meth:`update` must be called with current class features.
    """

    def __init__(self, num_classes: int, temperature: float = 0.05, share: float = 0.5) -> None:
        if not 0 < share <= 1 or not temperature > 0:
            raise UserError(f"hard negatives need 0 < share <= 1 and temperature > 0, given {share} and {temperature}")
        self.num_classes = num_classes
        self.temperature = temperature
        self.share = share
        self.class_features: Tensor | None = None

    def update(self, class_features: Tensor) -> None:
        """Set the (N, E) unit-norm class features of the current prompt."""
        if len(class_features) != self.num_classes:
            raise UserError(f"{len(class_features)} class features for {self.num_classes} classes")
        self.class_features = class_features.detach()

    def __call__(
        self, count: int, generator: torch.Generator, image_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """``count`` ids (M,) and log inclusion probabilities (M,), for a batch of image features (B, E)."""
        _check_count(count, self.num_classes)
        if self.class_features is None or image_features is None:
            raise UserError("hard negatives need class features (update) and the image features of the batch")
        likeness = (image_features @ self.class_features.T / self.temperature).softmax(dim=-1).mean(dim=0)  # (N,)
        weights = (1 - self.share) * likeness.double().cpu() + self.share / self.num_classes
        return draw_weighted(weights, count, generator)


def draw_weighted(weights: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Successive draws without replacement by exponential clocks (Efraimidis and Spirakis 2006).

    Class i rings at an exponential time of rate w_i; the first ``count`` to ring are the sample. Given the time t of
    the next ring, class i would have been drawn with probability 1 - exp(-w_i t) whatever the others did. Weighting
    each drawn class by the inverse of that makes sums over the sample unbiased for sums over all classes, exactly
    and at any size (rank conditioning, Cohen and Kaplan 2007); the plain inclusion probability has no closed form.

    Returns:
        ids (M,) and log inclusion probabilities (M,) as float32; these differ from draw to draw.
    """
    clocks = torch.empty_like(weights).exponential_(generator=generator) / weights
    times, ids = torch.topk(clocks, min(count + 1, len(weights)), largest=False)
    if count == len(weights):
        return ids, torch.zeros(count)
    ids = ids[:count]
    return ids, torch.log(-torch.expm1(-weights[ids] * times[count])).float()


def _check_count(count: int, num_classes: int) -> None:
    if not 0 < count <= num_classes:
        raise UserError(f"{count} negatives were asked for out of {num_classes} classes; lower K")
