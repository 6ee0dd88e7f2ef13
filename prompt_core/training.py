"""Learning a prompt: one step as a pure function, and a loop that a killed process resumes bit for bit.

Everything random in a step follows from the seed, the epoch and the step alone, so the state to resume from is the
prompt, the momentum and two counters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.contrast import Correction, full_softmax_logits, local_contrast_logits
from prompt_core.encoder import PromptedTextEncoder
from prompt_core.errors import UserError
from prompt_core.prompt import SoftPrompt
from prompt_core.sampling import ClassSampler, HardSampler
from prompt_core.schedule import epoch_learning_rates
from prompt_core.vocabulary import Vocabulary


@dataclass(frozen=True)
class LearningSettings:
    """Settings of the loop; the defaults are those of POMP's trainer: SGD, a warm-up epoch, cosine per epoch."""

    num_classes: int = 1000  # K; 0 for the full softmax
    correction: Correction = "log10"
    reject: str = "name"
    chunk_size: int | None = None
    epochs: int = 20
    batch: int = 32
    views: int = 4
    learning_rate: float = 0.002
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: int = 1
    warmup_learning_rate: float = 1e-5
    hard_refresh: int = 50
    seed: int = 42


@dataclass
class LearningState:
    """Where a run stands: counters of what is done, running sums of the epoch, and the optimiser."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    optimizer: dict[str, Any] | None = None
    bank_context: Tensor | None = None


@dataclass(frozen=True)
class StepReport:
    """What a progress display shows of one step."""

    epoch: int
    step: int
    steps_per_epoch: int
    loss: float
    accuracy: float
    images: int
    learning_rate: float
    epoch_done: bool


def contrast_step(
    encoder: PromptedTextEncoder,
    prompt: SoftPrompt,
    vocabulary: Vocabulary,
    image_features: Tensor,
    labels: Tensor,
    settings: LearningSettings,
    sampler: ClassSampler,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, and which images are classified right among the classes that the loss looked at.

    Args:
        image_features: (B, E) unit-norm.
        labels: (B,) rows of ``vocabulary``.

    Returns:
        scalar loss with a graph to the prompt, and (B,) booleans.
    """
    device = image_features.device
    groups = torch.from_numpy(vocabulary.name_groups).to(device) if settings.reject == "name" else None
    scale = encoder.clip.logit_scale
    if not 0 < settings.num_classes < len(vocabulary):
        features = encoder(prompt, vocabulary, chunk_size=settings.chunk_size).to(image_features.dtype)
        logits = full_softmax_logits(image_features, features, labels, scale, groups)
        target = labels
    else:
        drawn, log_inclusion = sampler(settings.num_classes - 1, generator, image_features)
        negative_ids = drawn.to(device)
        needed, place = torch.unique(torch.cat([labels, negative_ids]), return_inverse=True)
        context = prompt.context[needed] if prompt.class_specific else prompt.context
        names = [vocabulary.names[row] for row in needed.tolist()]
        features = encoder.encode_context(
            context, names, prompt.position, prompt.deep_context, chunk_size=settings.chunk_size
        ).to(image_features.dtype)
        logits = local_contrast_logits(
            image_features,
            features[place[: len(labels)]],
            features[place[len(labels) :]],
            labels,
            negative_ids,
            len(vocabulary),
            scale,
            settings.correction,
            groups,
            None if log_inclusion is None else log_inclusion.to(device),
        )
        target = torch.zeros_like(labels)
    return F.cross_entropy(logits, target), logits.argmax(dim=1) == target


def learn_prompt(
    encoder: PromptedTextEncoder,
    prompt: SoftPrompt,
    vocabulary: Vocabulary,
    features: np.ndarray,
    labels: np.ndarray,
    settings: LearningSettings,
    sampler: ClassSampler,
    state: LearningState,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[StepReport]:
    """Learn in place, yielding after every step, so that the caller decides when to save, show and stop.

    Args:
        features: (n, V, E) unit-norm image features, V views of each.
        labels: (n,) rows of ``vocabulary``.
        state: where to go on from; kept up to date.
        stop: asked before each step; the loop ends when it says yes.

    Raises:
        UserError: no images, or a loss that is not finite.
    """
    count = len(features)
    if count == 0:
        raise UserError("there are no training images")
    batch = min(settings.batch, count)
    steps = count // batch
    views = min(settings.views, features.shape[1]) if settings.views > 0 else features.shape[1]
    device = prompt.context.device
    optimizer = torch.optim.SGD(
        prompt.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    if state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    rates = epoch_learning_rates(
        settings.epochs, settings.learning_rate, settings.warmup_epochs, settings.warmup_learning_rate
    )
    if isinstance(sampler, HardSampler) and state.bank_context is not None:
        _refresh(sampler, encoder, prompt, vocabulary, state.bank_context.to(device))
    while state.epoch < settings.epochs:
        order = torch.randperm(count, generator=_generator(settings.seed, "order", state.epoch)).numpy()
        for group in optimizer.param_groups:
            group["lr"] = rates[state.epoch]
        while state.step < steps:
            if stop():
                return
            chosen = order[state.step * batch : (state.step + 1) * batch]
            generator = _generator(settings.seed, "step", state.epoch, state.step)
            picked, tiled = _views(features, labels, chosen, views, generator)
            image_features, targets = picked.to(device), tiled.to(device)
            if isinstance(sampler, HardSampler) and state.step % settings.hard_refresh == 0:
                state.bank_context = prompt.context.detach().clone()
                _refresh(sampler, encoder, prompt, vocabulary, state.bank_context)
            loss, right = contrast_step(
                encoder, prompt, vocabulary, image_features, targets, settings, sampler, generator
            )
            if not bool(torch.isfinite(loss)):
                raise UserError(
                    f"the loss is {float(loss.detach())} at epoch {state.epoch + 1}, step {state.step + 1}; "
                    "lower OPTIM.LR or check the features"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            state.step += 1
            state.loss_sum += float(loss.detach()) * len(targets)
            state.correct += int(right.sum())
            state.seen += len(targets)
            state.optimizer = optimizer.state_dict()
            report = StepReport(
                state.epoch,
                state.step,
                steps,
                state.loss_sum / state.seen,
                state.correct / state.seen,
                batch,
                rates[state.epoch],
                state.step == steps,
            )
            if report.epoch_done:
                state.history.append({"loss": report.loss, "accuracy": report.accuracy, "lr": rates[state.epoch]})
                state.epoch, state.step = state.epoch + 1, 0
                state.loss_sum, state.correct, state.seen = 0.0, 0, 0
                yield report
                break
            yield report


def _views(
    features: np.ndarray, labels: np.ndarray, chosen: np.ndarray, views: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """``views`` different stored views of each chosen image: (B views, E) float32, and labels (B views,)."""
    stored = features.shape[1]
    ranks = torch.rand(len(chosen), stored, generator=generator).argsort(dim=1)[:, :views].numpy()  # (B, views)
    picked = torch.from_numpy(np.asarray(features[chosen[:, None], ranks], dtype=np.float32))  # (B, views, E)
    picked = F.normalize(picked, dim=-1)
    # Views first, images tiled behind, as the published trainer concatenates its augmented batches.
    flat = picked.transpose(0, 1).reshape(-1, picked.shape[-1])
    return flat, torch.from_numpy(labels[chosen].astype(np.int64)).repeat(views)


def _refresh(
    sampler: HardSampler, encoder: PromptedTextEncoder, prompt: SoftPrompt, vocabulary: Vocabulary, context: Tensor
) -> None:
    with torch.no_grad():
        sampler.update(encoder.encode_context(context, vocabulary.names, prompt.position, prompt.deep_context))


def _generator(*parts: int | str) -> torch.Generator:
    """A generator seeded by a hash, so that neighbouring seeds and steps share nothing."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
