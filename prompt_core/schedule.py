"""Learning rate of each epoch, as the published trainer sets it."""

from __future__ import annotations

import math


def epoch_learning_rates(
    epochs: int, learning_rate: float = 0.002, warmup_epochs: int = 1, warmup_learning_rate: float = 1e-5
) -> list[float]:
    """Constant warm-up, then a cosine over ``epochs`` that restarts after it and so never reaches its end.

    The rate changes once an epoch. Source: Dassl's ``ConstantWarmupScheduler`` around ``CosineAnnealingLR`` with
    ``T_max = epochs``.
    """
    rates = []
    for epoch in range(epochs):
        phase = epoch - warmup_epochs
        cosine = 0.5 * learning_rate * (1 + math.cos(math.pi * phase / epochs))
        rates.append(warmup_learning_rate if phase < 0 else cosine)
    return rates
