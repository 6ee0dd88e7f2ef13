"""Fitting the last stage of the image tower to several kinds of pictures at once, without losing what it answered."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.mini_clip.last_stage import LastStage

STEPS, RATE, WARMUP = 350, 4e-4, 20
# Shares of the learned weights in the average with those of the start (arXiv 2109.01903). Photos and regions share the
# projection: moving it is what costs photos, while the layers below can tell the two apart.
MIX, PROJECTION_MIX = 1.0, 0.4
BALANCE = 0.8  # a class is drawn as often as its number of pictures to this power


@dataclass(frozen=True)
class Lesson:
    """Pictures of one kind.

    Attributes:
        maps: (N, D) what the lower trunk makes of them.
        batch: of them in a step.
        keep: weight of staying close to the answers that the start gives over all kept classes.
        learn: weight of the labels.
        labels: (N,) into the rows of ``classes``; None where only the answers should stay.
        classes: (C, E) unit-norm class features, one such table for each template; steps take them in turn.
    """

    maps: np.ndarray
    batch: int
    keep: float
    learn: float = 0.0
    labels: Tensor | None = None
    classes: Sequence[Tensor] = field(default_factory=tuple)

    def chances(self) -> Tensor:
        """(N,) relative chances of the pictures to be drawn."""
        if self.labels is None:
            return torch.ones(len(self.maps))
        return torch.bincount(self.labels).float().clamp(min=1).pow(BALANCE - 1)[self.labels]


def features_of(stage: LastStage, maps: np.ndarray, block: int = 256) -> Tensor:
    """Unit-norm features (N, E) of maps (N, D)."""
    rows = [torch.from_numpy(np.array(maps[start : start + block])).float() for start in range(0, len(maps), block)]
    with torch.inference_mode():
        return torch.cat([stage(part) for part in rows])


def taught(
    start: LastStage,
    lessons: Sequence[Lesson],
    kept: Tensor,
    scale: float,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> LastStage:
    """The stage after :data:`STEPS` steps over all lessons, averaged with where it started.

    Args:
        kept: (K, E) unit-norm features of the classes whose answers should not change.
        scale: logit scale.
        progress: called with (steps, of).
    """
    generator = torch.Generator().manual_seed(seed)
    stage = copy.deepcopy(start)
    before = [features_of(start, lesson.maps).clone() for lesson in lessons]
    chances = [lesson.chances() for lesson in lessons]
    optimizer = torch.optim.AdamW(stage.parameters(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, 0.5 + 0.5 * float(np.cos(np.pi * step / STEPS)))
    )
    for step in range(STEPS):
        drawn = [torch.multinomial(chance, lesson.batch, True, generator=generator)
                 for lesson, chance in zip(lessons, chances, strict=True)]  # fmt: skip
        maps = torch.cat(
            [torch.from_numpy(lesson.maps[rows.numpy()]) for lesson, rows in zip(lessons, drawn, strict=True)]
        )
        with torch.autocast("cpu", torch.bfloat16):  # half the time where the processor supports it
            features = stage(maps.float())
        parts = F.normalize(features.float(), dim=1).split([lesson.batch for lesson in lessons])
        loss = torch.zeros(())
        for lesson, rows, now, then in zip(lessons, drawn, parts, before, strict=True):
            answers = (scale * then[rows] @ kept.T).softmax(1)
            drift = F.kl_div((scale * now @ kept.T).log_softmax(1), answers, reduction="batchmean")
            loss = loss + lesson.keep * drift
            if lesson.labels is not None:
                classes = lesson.classes[step % len(lesson.classes)]
                loss = loss + lesson.learn * F.cross_entropy(scale * now @ classes.T, lesson.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, STEPS)
    with torch.no_grad():
        for (name, old), new in zip(start.named_parameters(), stage.parameters(), strict=True):
            new.copy_(torch.lerp(old, new, PROJECTION_MIX if name.startswith("projection.") else MIX))
    return stage
