"""Learning a method: a loop that a killed process resumes bit for bit.

Everything random in a step depends only on the seed, the epoch and the step, so the state to resume from is what is
learned, its momentum and two counters.

A step does not wait for its device: loss and right answers are summed there, and read when someone looks at them.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from prompt_core.errors import UserError
from prompt_core.methods.base import Method, seeded
from prompt_core.negatives import ClassSampler, HardSampler
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.ranks.shared_classes import class_shares, own_class_features
from prompt_core.towers.placement import upload
from prompt_core.training.anchor import Anchor
from prompt_core.training.batches import Batches
from prompt_core.training.step import LearningSettings, check_ranks, image_runs, method_step
from prompt_core.vocabulary import Vocabulary

READ_SECONDS = 1.0  # between two readings of the sums of a run on a GPU


class BestEpoch(TypedDict):
    """The epoch (from 1) with the highest accuracy on the images that choose, and what was learned by then."""

    epoch: int
    accuracy: float
    learned: dict[str, Tensor]


@dataclass
class LearningState:
    """The progress of a run: counters, running sums of the epoch, and the optimiser.

    :attr:`loss_sum`, :attr:`correct` and :attr:`seen` are as of the last :meth:`settle`.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    optimizer: dict[str, Any] | None = None
    # What the hard sampler's class features were computed with; older states hold only the context.
    bank_context: Tensor | dict[str, Tensor] | None = None
    best: BestEpoch | None = None

    def __post_init__(self) -> None:
        # On the device, float64: loss sum, right answers, images, the first step without a finite loss (0 for none),
        # and that loss.
        self._sums: Tensor | None = None

    def count(self, loss: Tensor, right: Tensor, images: int) -> None:
        """Add a step: its mean loss, and how many of its images are right. Nothing waits for the device."""
        self.step += 1
        if self._sums is None:
            start = [self.loss_sum, float(self.correct), float(self.seen), 0.0, 0.0]
            self._sums = upload(torch.tensor(start, dtype=torch.float64), loss.device)
        loss = loss.detach().double()
        loss_sum, correct, seen, diverged, value = self._sums.unbind()
        first = ~torch.isfinite(loss) & (diverged == 0)
        sums = (loss_sum + loss * images, correct + right, seen + images)
        self._sums = torch.stack([*sums, torch.where(first, self.step, diverged), torch.where(first, loss, value)])

    def settle(self) -> None:
        """Read the sums from the device.

        Raises:
            UserError: a loss since the last reading was not finite.
        """
        if self._sums is None:
            return
        self.loss_sum, correct, seen, diverged, value = self._sums.tolist()
        self.correct, self.seen = int(correct), int(seen)
        if diverged:
            raise UserError(
                f"the loss is {value} at epoch {self.epoch + 1}, step {int(diverged)}; "
                "lower OPTIM.LR or check the features"
            )
        self._sums = None

    def report(self, steps: int, images: int, learning_rate: float) -> StepReport:
        """Report the last step; after the last of ``steps`` the epoch is added to the history."""
        report = StepReport(
            self.epoch,
            self.step,
            steps,
            self.loss_sum / self.seen,
            self.correct / self.seen,
            images,
            learning_rate,
            self.step == steps,
            self._sums is None,
        )
        if report.epoch_done:
            self.history.append({"loss": report.loss, "accuracy": report.accuracy, "lr": learning_rate})
            self.epoch, self.step = self.epoch + 1, 0
            self.loss_sum, self.correct, self.seen = 0.0, 0, 0
        return report


@dataclass(frozen=True)
class StepReport:
    """What a progress display shows of one step.

    Attributes:
        loss, accuracy: running means of the epoch, up to the last step whose sums were read.
        is_read: whether that is this step.
    """

    epoch: int
    step: int
    steps_per_epoch: int
    loss: float
    accuracy: float
    images: int
    learning_rate: float
    epoch_done: bool
    is_read: bool = True


def learn(
    method: Method,
    vocabulary: Vocabulary,
    batches: Batches,
    settings: LearningSettings,
    sampler: ClassSampler,
    state: LearningState,
    stop: Callable[[], bool] = lambda: False,
    clip_grad_norm: float | None = None,
    anchor: Anchor | None = None,
    read_seconds: float | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[StepReport]:
    """Learn in place, yielding after every step, so that the caller decides when to save, display and stop.

    The ranks of a job see the same order, draws and views, whatever their number. They share out the images and the
    class features of each step, add up the gradients once, and so learn the same on each.

    The method is in training mode within a step only: whenever the caller has it, it evaluates. What draws from torch's
    global generator within a step (dropout) depends on the seed, the epoch and the step, as everything else.

    Args:
        batches: the training images; their labels are rows of ``vocabulary``.
        state: where to continue from; updated in place.
        stop: called before each step; the loop ends when it returns true.
        clip_grad_norm: largest norm of the whole gradient.
        anchor: what holds names that are not learned on, if anything does.
        read_seconds: how often the sums are read from the device at least, besides at both ends of an epoch; 0 for
            every step, before what is learned changes; None for that on a CPU, and for :data:`READ_SECONDS` elsewhere.
        ranks: the processes of a job; each calls this with the same arguments.

    Raises:
        UserError: no images, nothing to learn, a sampler that does not fit the method, a loss that is not finite, or
            more ranks than the method can use.
    """
    count = len(batches)
    if count == 0:
        raise UserError("there are no training images")
    groups = method.parameter_groups()
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not parameters:
        raise UserError(f"method {method.name} learns nothing")
    hard = sampler if isinstance(sampler, HardSampler) else None
    if hard is not None and (method.conditional or method.reads == "raw_features"):
        raise UserError(
            f"method {method.name} has no class features to choose hard negatives by; use LOSS.SAMPLER uniform"
        )
    optimizer = torch.optim.SGD(
        groups, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    if state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    rates = epoch_learning_rates(
        settings.epochs, settings.learning_rate, settings.warmup_epochs, settings.warmup_learning_rate
    )
    if hard is not None and state.bank_context is not None:
        _bank_as_it_was(hard, method, vocabulary, state.bank_context, ranks)
    batch = min(settings.batch, count)
    steps = count // batch
    own = image_runs(batch, settings, ranks)[ranks.rank]
    check_ranks(method, batch, settings, ranks)
    if read_seconds is None:
        read_seconds = 0.0 if method.device.type == "cpu" else READ_SECONDS
    read_at = -math.inf
    for epoch in range(state.epoch, settings.epochs):
        order = torch.randperm(count, generator=_generator(settings.seed, "order", epoch)).numpy()
        for group in optimizer.param_groups:
            # The warm-up's constant rate is one for all groups, as in Dassl.
            scale = 1.0 if epoch < settings.warmup_epochs else group.get("lr_scale", 1.0)
            group["lr"] = rates[epoch] * scale
        for step in range(state.step, steps):
            if ranks.any(stop()):
                return
            generator = _generator(settings.seed, "step", epoch, step)
            chosen = order[step * batch : (step + 1) * batch]
            inputs, labels = batches.batch(chosen, epoch, generator, own)
            views = len(labels) // batch
            inputs = upload(inputs, method.device)
            if step + 1 < steps:
                batches.expect(order[(step + 1) * batch :][own.start : own.stop], epoch)
            if hard is not None and step % settings.hard_refresh == 0:
                state.bank_context = _copy(method.state_module)
                _fill_bank(hard, method, vocabulary, ranks)

            method.train()
            # What a method itself draws is drawn on each rank for its own share.
            with seeded(_seed(settings.seed, "noise", epoch, step) + ranks.rank):
                loss, right = method_step(
                    method, vocabulary, inputs, labels, settings, sampler, generator, views, anchor, ranks
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            whole_loss, correct = ranks.sum_gradients(parameters, loss, right.sum())
            state.count(whole_loss, correct, len(labels))
            if not state.seen or state.step == steps or time.monotonic() - read_at >= read_seconds:
                state.settle()
                read_at = time.monotonic()
            if clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
            optimizer.step()
            method.eval()
            del loss  # with its graph, whose memory the next step takes

            state.optimizer = optimizer.state_dict()
            yield state.report(steps, batch, rates[epoch])


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def _fill_bank(sampler: HardSampler, method: Method, vocabulary: Vocabulary, ranks: Ranks) -> None:
    shares = class_shares(method, vocabulary, None, ranks)
    with torch.no_grad():
        own = own_class_features(method, vocabulary, None, shares, None, ranks)
        sampler.update(ranks.gather_rows(own, shares))


def _bank_as_it_was(
    sampler: HardSampler, method: Method, vocabulary: Vocabulary, bank: Tensor | dict[str, Tensor], ranks: Ranks
) -> None:
    """Give the sampler the class features of its last update again."""
    now = _copy(method.state_module)
    method.state_module.load_state_dict({"context": bank} if isinstance(bank, Tensor) else bank)
    _fill_bank(sampler, method, vocabulary, ranks)
    method.state_module.load_state_dict(now)


def _seed(*parts: int | str) -> int:
    """A hash, so that neighbouring seeds and steps are independent."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def _generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(*parts))


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
