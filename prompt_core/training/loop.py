"""Learning a method: one step as a pure function, and a loop that a killed process resumes bit for bit.

Everything random in a step follows from the seed, the epoch and the step alone, so the state to resume from is what
is learned, its momentum and two counters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_core.errors import UserError
from prompt_core.losses import Correction, full_softmax_logits, local_contrast_logits
from prompt_core.methods.base import Method
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.negatives import ClassSampler, HardSampler
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.training.batches import Batches, FeatureBatches
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


class BestEpoch(TypedDict):
    """The epoch (from 1) with the highest accuracy on the images that choose, and what was learned by then."""

    epoch: int
    accuracy: float
    learned: dict[str, Tensor]


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
    # What the hard sampler's class features were made with: the context alone in states of before.
    bank_context: Tensor | dict[str, Tensor] | None = None
    best: BestEpoch | None = None


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


def method_step(
    method: Method,
    vocabulary: Vocabulary,
    inputs: Tensor,
    labels: Tensor,
    settings: LearningSettings,
    sampler: ClassSampler,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, and which images are classified right among the classes that the loss looked at.

    Args:
        inputs: (B, ...) as ``method.reads`` says.
        labels: (B,) rows of ``vocabulary``.

    Returns:
        scalar loss with a graph to what is learned, and (B,) booleans.
    """
    images = method.image_features(inputs)  # (B, E)
    device = images.device
    groups = torch.from_numpy(vocabulary.name_groups).to(device) if settings.reject == "name" else None
    rows: Tensor | None = None
    if not 0 < settings.num_classes < len(vocabulary):
        classes = method.class_features(vocabulary, None, images, settings.chunk_size)
        target = labels

        def contrast(images: Tensor, classes: Tensor, labels: Tensor, place: Tensor) -> Tensor:
            return full_softmax_logits(images, classes, labels, method.logit_scale, groups)

    else:
        drawn, log_inclusion = sampler(settings.num_classes - 1, generator, images)
        negative_ids = drawn.to(device)
        rows, places = torch.unique(torch.cat([labels, negative_ids]), return_inverse=True)
        classes = method.class_features(vocabulary, rows, images, settings.chunk_size)
        weights = None if log_inclusion is None else log_inclusion.to(device)
        negative_places = places[len(labels) :]
        target = torch.zeros_like(labels)

        def contrast(images: Tensor, classes: Tensor, labels: Tensor, place: Tensor) -> Tensor:
            return local_contrast_logits(
                images,
                classes[place],
                classes[negative_places],
                labels,
                negative_ids,
                len(vocabulary),
                method.logit_scale,
                settings.correction,
                groups,
                weights,
            )

    classes = classes.to(images.dtype)
    place = labels if rows is None else places[: len(labels)]
    if method.conditional:
        each = zip(images.split(1), classes, labels.split(1), place.split(1), strict=True)
        logits = torch.cat([contrast(*one) for one in each])
    else:
        logits = contrast(images, classes, labels, place)
    loss = F.cross_entropy(logits, target)
    term = method.regulariser(vocabulary, rows, classes, generator)
    return loss if term is None else loss + term, logits.argmax(dim=1) == target


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
    """:func:`method_step` of a soft prompt on unit-norm image features (B, E)."""
    method = SoftPromptMethod.around(encoder, prompt)
    return method_step(method, vocabulary, image_features, labels, settings, sampler, generator)


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
    """:func:`learn` of a soft prompt on (n, V, E) unit-norm image features, V views of each."""
    method = SoftPromptMethod.around(encoder, prompt)
    batches = FeatureBatches(features, labels, settings.views)
    return learn(method, vocabulary, batches, settings, sampler, state, stop)


def learn(
    method: Method,
    vocabulary: Vocabulary,
    batches: Batches,
    settings: LearningSettings,
    sampler: ClassSampler,
    state: LearningState,
    stop: Callable[[], bool] = lambda: False,
    clip_grad_norm: float | None = None,
) -> Iterator[StepReport]:
    """Learn in place, yielding after every step, so that the caller decides when to save, show and stop.

    Args:
        batches: the training images; their labels are rows of ``vocabulary``.
        state: where to go on from; kept up to date.
        stop: asked before each step; the loop ends when it says yes.
        clip_grad_norm: largest norm of the whole gradient.

    Raises:
        UserError: no images, nothing to learn, a sampler that does not go with the method, or a loss that is not
            finite.
    """
    count = len(batches)
    if count == 0:
        raise UserError("there are no training images")
    batch = min(settings.batch, count)
    steps = count // batch
    device = method.device
    groups = method.parameter_groups()
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not parameters:
        raise UserError(f"method {method.name} learns nothing")
    if isinstance(sampler, HardSampler) and (method.conditional or method.reads == "raw_features"):
        raise UserError(
            f"method {method.name} has no class features to find hard negatives by; use LOSS.SAMPLER uniform"
        )
    optimizer = torch.optim.SGD(
        groups, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    if state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    rates = epoch_learning_rates(
        settings.epochs, settings.learning_rate, settings.warmup_epochs, settings.warmup_learning_rate
    )
    if isinstance(sampler, HardSampler) and state.bank_context is not None:
        _refresh_from(sampler, method, vocabulary, state.bank_context)
    while state.epoch < settings.epochs:
        order = torch.randperm(count, generator=_generator(settings.seed, "order", state.epoch)).numpy()
        for group in optimizer.param_groups:
            group["lr"] = rates[state.epoch] * group.get("lr_scale", 1.0)
        while state.step < steps:
            if stop():
                return
            chosen = order[state.step * batch : (state.step + 1) * batch]
            generator = _generator(settings.seed, "step", state.epoch, state.step)
            picked, tiled = batches.batch(chosen, state.epoch, generator)
            inputs, targets = picked.to(device), tiled.to(device)
            if state.step + 1 < steps:
                batches.expect(order[(state.step + 1) * batch : (state.step + 2) * batch], state.epoch)
            if isinstance(sampler, HardSampler) and state.step % settings.hard_refresh == 0:
                state.bank_context = _copy(method.state_module)
                _refresh(sampler, method, vocabulary)
            loss, right = method_step(method, vocabulary, inputs, targets, settings, sampler, generator)
            if not bool(torch.isfinite(loss)):
                raise UserError(
                    f"the loss is {float(loss.detach())} at epoch {state.epoch + 1}, step {state.step + 1}; "
                    "lower OPTIM.LR or check the features"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
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


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def _refresh(sampler: HardSampler, method: Method, vocabulary: Vocabulary) -> None:
    with torch.no_grad():
        sampler.update(method.class_features(vocabulary))


def _refresh_from(
    sampler: HardSampler, method: Method, vocabulary: Vocabulary, bank: Tensor | dict[str, Tensor]
) -> None:
    """The sampler's class features as they were when the bank was made."""
    now = _copy(method.state_module)
    method.state_module.load_state_dict({"context": bank} if isinstance(bank, Tensor) else bank)
    _refresh(sampler, method, vocabulary)
    method.state_module.load_state_dict(now)


def _generator(*parts: int | str) -> torch.Generator:
    """A generator seeded by a hash, so that neighbouring seeds and steps share nothing."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


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
