"""Time and memory of the text side and of open_clip's own, each measured in a fresh process."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from unittest.mock import patch

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.benchmarks.harness import Measured, measure_gpu_memory, measure_memory, spread, take_turns, timed
from pomp_lab.benchmarks.limits import shares_of_limits
from prompt_core.classifier import TextClassifier
from prompt_core.clip import Clip, load_clip
from prompt_core.errors import UserError
from prompt_core.losses import local_contrast_logits
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.text.tokens import PromptTokenizer
from prompt_core.vocabulary import Vocabulary

CONTEXTS = 16  # context vectors of the prompt
BATCH = 32  # images of a training step
TEMPLATE = "a photo of a {}."

# Class ids (K,) to the work's result, which shows that two sides agree.
Work = Callable[[Tensor], Mapping[str, Any]]


@dataclass(frozen=True)
class TextWork:
    """One measurement.

    Attributes:
        clip: architecture; the weights are random.
        vocabulary: where the names come from.
        threads: torch threads.
        work: ``step`` (a training step's text side), ``prompt`` or ``template`` (:meth:`TextClassifier.build`), or
            ``open_clip`` (its ``build_zero_shot_classifier`` with its default batch size).
        names: how many; a step draws them at random, a classifier takes the first. None for all, in order.
        chunk_size: names per pass of a step.
        reference: whether a step runs all 77 tokens through open_clip's own tower.
        warm: whether a second call is timed, after the first whose memory is measured; for work of a few seconds. On
            a GPU it always is.
        device: cpu or cuda.
        precision: of the towers' products, see :func:`prompt_core.clip.load_clip`.
    """

    clip: str
    vocabulary: str
    threads: int
    work: str = "step"
    names: int | None = None
    chunk_size: int | None = None
    reference: bool = False
    warm: bool = False
    device: str = "cpu"
    precision: str = "float32"


def measure_sides(works: Mapping[str, TextWork], repeats: int) -> dict[str, Measured]:
    """Measure each work in fresh processes, see :func:`pomp_lab.benchmarks.harness.take_turns`.

    Returns:
        for each its settings, the number of ``names``, the :func:`spread` of ``seconds``, ``extra_bytes`` and
        ``peak_bytes``, and the ``result`` of the last call; for a step also the spreads of ``product_share`` and
        ``copy_share``, and the last of the other values of :func:`pomp_lab.benchmarks.limits.shares_of_limits`.

    Raises:
        UserError: a process failed.
    """
    jobs = {side: (work,) for side, work in works.items()}
    quantities = ["seconds", "extra_bytes", "peak_bytes"]
    if all(work.work == "step" for work in works.values()):
        quantities += ["product_share", "copy_share"]
    sides = take_turns(measure_work, jobs, repeats, quantities)
    return {side: {**asdict(works[side]), **measured} for side, measured in sides.items()}


def measure_work(job: TextWork) -> Measured:
    """Load, warm up on two names, measure: what :func:`measure_memory` returns, ``names``, and the shares of a step."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    clip = load_clip(job.clip, device=job.device, precision=job.precision)
    vocabulary = Vocabulary.load(job.vocabulary)
    if job.work == "step":
        work = training_step(clip, vocabulary, job.chunk_size, job.reference)
    else:
        work = classifier_build(clip, vocabulary, job.work)
    ids = choose_names(vocabulary, job.names, at_random=job.work == "step")
    # Thread pools and the libraries' own buffers appear at the first call; they are not part of the work.
    work(ids[:2])
    if clip.device.type == "cuda":
        measured = measure_gpu_memory(lambda: work(ids))
    else:
        measured = measure_memory(lambda: work(ids), job.warm)
    if job.work == "step":
        names = different_names(vocabulary, ids)
        encoder = PromptedTextEncoder(clip)
        measured |= shares_of_limits(encoder, names, CONTEXTS, job.reference, measured["seconds"])
    return {"names": len(ids), **measured}


def choose_names(vocabulary: Vocabulary, count: int | None, at_random: bool) -> Tensor:
    """Class ids (K,): ``count`` by a fixed seed or the first ones; None for all, in order.

    Raises:
        UserError: when there are fewer.
    """
    total = len(vocabulary)
    if count is not None and count > total:
        raise UserError(f"{count} names were asked for, the vocabulary has {total}; give a larger --vocabulary")
    if count is None or not at_random:
        return torch.arange(total)[:count]
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:count]


def different_names(vocabulary: Vocabulary, ids: Tensor) -> list[str]:
    """The names of classes (K,), each once: what a step encodes."""
    return list(dict.fromkeys(vocabulary.names[row] for row in ids.tolist()))


def training_step(clip: Clip, vocabulary: Vocabulary, chunk_size: int | None = None, reference: bool = False) -> Work:
    """POMP's loss (local contrast with correction) of random images over K names, and its gradient at the prompt.

    The K names are the sample; the images belong to the first of them. Over all names it is the full softmax.
    """
    encoder = PromptedTextEncoder(clip)
    prompt = SoftPrompt.random(encoder.tower.width, CONTEXTS).to(clip.device)
    images = torch.randn(BATCH, encoder.tower.embed_dim, generator=torch.Generator().manual_seed(0))
    images = F.normalize(images, dim=-1).to(clip.device)
    groups, size = torch.from_numpy(vocabulary.name_groups).to(clip.device), len(vocabulary)

    def step(ids: Tensor) -> dict[str, float]:
        names = [vocabulary.names[row] for row in ids.tolist()]
        features = encoder(prompt, names, chunk_size, reference)  # (K, E)
        ids, labels = ids.to(clip.device), torch.arange(BATCH, device=clip.device) % len(ids)
        logits = local_contrast_logits(
            images, features[labels], features, ids[labels], ids, size, clip.logit_scale, name_groups=groups
        )  # (B, 1 + K)
        loss = F.cross_entropy(logits, torch.zeros_like(labels))
        (gradient,) = torch.autograd.grad(loss, prompt.context)
        return {"loss": float(loss.detach()), "gradient_norm": float(gradient.norm())}

    return step


def classifier_build(clip: Clip, vocabulary: Vocabulary, work: str) -> Work:
    """Class features as ``tools/build_classifier.py`` or open_clip makes them; see :class:`TextWork` for ``work``."""
    subject = SoftPrompt.random(PromptedTextEncoder(clip).tower.width, CONTEXTS) if work == "prompt" else TEMPLATE

    def build(ids: Tensor) -> dict[str, list[float]]:
        names = [vocabulary.names[row].replace("_", " ") for row in ids.tolist()]
        if work == "open_clip":
            weight = open_clip.build_zero_shot_classifier(clip.model, clip.tokenizer, names, [TEMPLATE]).T
        else:
            # A copy, so that the hash of the weights, which the file names, is not remembered from the warm-up.
            weight = TextClassifier.build(copy.copy(clip), names, subject).weight
        return {"first_values": weight[0, :8].tolist()}

    return build


def measure_crossover(
    vocabulary: Vocabulary, widths: Sequence[int], counts: Sequence[int], calls: int, most_work: float
) -> list[dict[str, Any]]:
    """Training steps on small random towers, packed and truncated in turns.

    Returns:
        a row for each width and count of names with at most ``most_work`` (as the encoder counts it), by work.
    """
    rows = []
    for width in widths:
        vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
        # Heads of 64 as in OpenAI's models; narrower ones let small towers have several.
        text = {"width": width, "heads": width // (64 if width >= 128 else 16), "layers": 12}
        torch.manual_seed(0)
        model = open_clip.CLIP(width, vision, text, quick_gelu=True)
        clip = Clip(model, f"width {width}", None, {}, open_clip.SimpleTokenizer())
        step = training_step(clip, vocabulary)
        for count in counts:
            ids = choose_names(vocabulary, count, at_random=True)
            names = different_names(vocabulary, ids)
            sequences = PromptTokenizer(clip.tokenizer).prompts(names, CONTEXTS)
            work = float((sequences.lengths - sequences.prefix_length).sum()) * 12 * width**2
            if work > most_work:
                continue
            seconds: dict[float, list[float]] = {0.0: [], math.inf: []}
            for _ in range(calls + 1):  # the first is the warm-up
                for minimum, times in seconds.items():
                    with patch("prompt_core.text.encoder.PACKED_MINIMUM_WORK", minimum):
                        times.append(timed(lambda: step(ids))[1])  # noqa: B023
            packed, truncated = (spread(times[1:]) for times in seconds.values())
            row = {"width": width, "names": count, "work": work, "packed": packed, "truncated": truncated}
            rows.append(row | {"time_ratio": truncated["median"] / packed["median"]})
    return sorted(rows, key=lambda row: row["work"])
