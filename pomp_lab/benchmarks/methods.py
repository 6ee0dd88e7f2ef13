"""The cost of a step of each method: learned parameters, time and memory, each measured in a fresh process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.benchmarks.harness import Measured, measure_gpu_memory, measure_memory, take_turns, timed
from prompt_core.clip import Clip, load_clip
from prompt_core.config import load_config
from prompt_core.errors import UserError
from prompt_core.methods.base import Method
from prompt_core.methods.registry import build_method, method_class
from prompt_core.negatives import UniformSampler
from prompt_core.training.recipe import learning_settings
from prompt_core.training.step import method_step
from prompt_core.vocabulary import Vocabulary

LONG = 30.0  # seconds of a step for which the warm-up is negligible


@dataclass(frozen=True)
class MethodStep:
    """One measurement.

    Attributes:
        clip: architecture; the weights are random, except those of ``mini``.
        vocabulary: where the names come from: a published vocabulary or a file.
        names: how many, the first ones; None for all.
        method: its name.
        images: of a step.
        settings: configuration keys and values of the method and of its loss.
        reference: whether all 77 tokens run through open_clip's own tower.
        device: cpu or cuda.
        threads: torch threads.
    """

    clip: str
    vocabulary: str
    names: int | None
    method: str = ""
    images: int = 32
    settings: dict[str, str] = field(default_factory=dict)
    reference: bool = False
    device: str = "cpu"
    threads: int = 1


def measure_rows(steps: Mapping[str, MethodStep], repeats: int) -> list[dict[str, Any]]:
    """Measure each step in fresh processes, see :func:`pomp_lab.benchmarks.harness.take_turns`.

    Returns:
        a row for each: its settings and what :func:`measure_step` returned, with the :func:`spread` of the times and
        of the memory; or ``not_measured`` with the reason, where its process failed.
    """
    failed: dict[str, str] = {}
    jobs = {row: (job,) for row, job in steps.items()}
    measured = take_turns(measure_step, jobs, repeats, ("seconds", "prepare_seconds", "extra_bytes"), failed)
    reasons = {row: {"not_measured": reason} for row, reason in failed.items()}
    return [{"row": row, **asdict(job), **(reasons.get(row) or measured[row])} for row, job in steps.items()]


def measure_step(job: MethodStep) -> Measured:
    """Load, warm up on two names, prepare, measure a step.

    Returns:
        ``names`` and ``classes_in_step``, ``learned_parameters``, ``prepare_seconds`` (texts that stay the same),
        ``seconds`` of the second step (of the first where that takes more than :data:`LONG` seconds), ``extra_bytes``
        and ``peak_bytes`` of the first, and the ``loss``.

    Raises:
        UserError: a method that does not fit the model, or too few names.
    """
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    clip, vocabulary = load_clip(job.clip, device=job.device), load_names(job.vocabulary, job.names)
    step(job, clip, vocabulary[:2])[1]()
    method, work = step(job, clip, vocabulary)
    on_gpu = job.device.startswith("cuda")
    _, prepare_seconds = timed(lambda: method.prepare(vocabulary))
    measured = measure_gpu_memory(work) if on_gpu else measure_memory(work, warm=True, long=LONG)
    loss, classes = measured.pop("result")
    return {
        "names": len(vocabulary),
        "classes_in_step": classes,
        "learned_parameters": sum(parameter.numel() for parameter in method.parameters()),
        "prepare_seconds": prepare_seconds,
        "loss": loss,
        **measured,
    }


def load_names(source: str, count: int | None) -> Vocabulary:
    """The first ``count`` names of a source. Raises UserError when there are fewer."""
    vocabulary = Vocabulary.load(source)
    if count is not None and count > len(vocabulary):
        raise UserError(f"{count} names were asked for, {source} has {len(vocabulary)}")
    return vocabulary if count is None else vocabulary[:count]


def step(job: MethodStep, clip: Clip, vocabulary: Vocabulary) -> tuple[Method, Callable[[], tuple[float, int]]]:
    """A method, and its training step on random images: loss, gradient, update.

    Methods that learn nothing score the images instead; their class features are what :meth:`Method.prepare` computes.
    """
    overrides = [text for pair in job.settings.items() for text in pair]
    cfg = load_config(None, ["METHOD.NAME", job.method, *overrides])
    if method_class(job.method).learned_by == "fit":
        raise UserError(f"method {job.method} is fitted at once and has no steps")
    method, settings = build_method(cfg, clip, vocabulary).for_data_set(""), learning_settings(cfg)
    if job.reference:
        method.class_features = functools.partial(method.class_features, reference=True)  # type: ignore[method-assign]
    inputs = random_inputs(method, job.images).to(clip.device)
    labels = torch.arange(job.images, device=clip.device) % len(vocabulary)
    count = settings.num_classes if 0 < settings.num_classes < len(vocabulary) else len(vocabulary)
    if method.learned_by == "nothing":

        def score() -> tuple[float, int]:
            with torch.no_grad():
                logits = method.logits(inputs, vocabulary)
            return float(F.cross_entropy(logits, labels)), len(vocabulary)

        return method, score
    optimizer = torch.optim.SGD(method.parameter_groups(), lr=settings.learning_rate, momentum=settings.momentum)
    sampler = UniformSampler(len(vocabulary))

    def learn() -> tuple[float, int]:
        generator = torch.Generator().manual_seed(0)
        loss, _ = method_step(method, vocabulary, inputs, labels, settings, sampler, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach()), count

    return method, learn


def random_inputs(method: Method, count: int) -> Tensor:
    """Images or features as the method reads them, by a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    size = method.clip.image_size
    if method.reads == "images":
        return torch.randn(count, 3, size, size, generator=generator)
    features = torch.randn(count, method.clip.embed_dim, generator=generator)
    return F.normalize(features, dim=-1) if method.reads == "features" else features
