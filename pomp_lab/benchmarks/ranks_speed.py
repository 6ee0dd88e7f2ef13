"""What several processes gain: the same step and the same photos by one and by more, each with a thread of its own.

Times are of the whole job: all processes begin together, and the slowest counts. Other work on the machine slows two
processes more than one, so the processor's seconds of each process are measured too: they say how much work a process
is spared.
"""

from __future__ import annotations

import multiprocessing
import queue
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pomp_lab.benchmarks.harness import Measured
from pomp_lab.benchmarks.text import BATCH, CONTEXTS
from prompt_core.clip import load_clip
from prompt_core.data import encode_photos
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.negatives import UniformSampler
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.training.step import LearningSettings, image_places, method_step
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

WAIT = 1800.0  # seconds for a measurement
PHOTO_SIDE = 256  # pixels of a generated photo
WIDTH = 512  # of class features, and of the prompt's vectors, of ViT-B/16


@dataclass(frozen=True)
class RanksWork:
    """One measurement.

    Attributes:
        work: ``step``, ``photos``, or ``reductions`` alone (the transfers of a step, without its computation).
        clip: architecture; the weights are random.
        vocabulary: where the names come from.
        names: K of a step; 0 for all.
        chunk_size: names per pass of a step.
        photos: how many are encoded.
        block: photos of a block, which one process encodes at a time.
        calls: measured calls, several after one that is not.
    """

    work: str
    clip: str
    vocabulary: str
    names: int = 1000
    chunk_size: int | None = None
    photos: int = 64
    block: int = 8
    calls: int = 3


def measure_in_ranks(job: RanksWork, size: int) -> Measured:
    """``seconds`` of the slowest process in the median call, the processor's ``cpu_seconds`` of each, all calls.

    Raises:
        UserError: a process failed or took too long.
    """
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_measure, args=(job, rank, size, folder, answers), daemon=True)
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        try:
            of_each = [answers.get(timeout=WAIT) for _ in processes]
        except queue.Empty as error:
            raise UserError(f"{size} processes did not end within {WAIT:.0f} s") from error
        finally:
            for process in processes:
                process.join(timeout=10)
                process.kill()
    if failed := [answer for answer in of_each if isinstance(answer, str)]:
        raise UserError(failed[0])
    calls = [max(times) for times in zip(*(answer["seconds"] for answer in of_each), strict=True)]
    return {
        **asdict(job),
        "processes": size,
        "seconds": statistics.median(calls),
        "fastest": min(calls),
        "all": calls,
        "cpu_seconds": max(statistics.median(answer["cpu_seconds"]) for answer in of_each),
        "facts": of_each[0]["facts"],
    }


def _measure(job: RanksWork, rank: int, size: int, folder: str, answers: Any) -> None:
    """In a process of its own: put what was measured, or what went wrong."""
    import torch.distributed as dist

    from prompt_core.ranks.process_ranks import ProcessRanks

    try:
        torch.set_num_threads(1)
        torch.manual_seed(0)  # the same random weights in each
        ranks = ALONE
        if size > 1:
            group: dict[str, Any] = {"rank": rank, "world_size": size, "timeout": timedelta(seconds=WAIT)}
            dist.init_process_group("gloo", init_method=f"file://{folder}/store", **group)
            ranks = ProcessRanks()
        call, facts = WORKS[job.work](job, ranks, Path(folder))
        if job.calls > 1:
            call(0)
        seconds, spent = [], []
        for number in range(1, job.calls + 1):
            ranks.wait()
            started, spent_before = time.perf_counter(), time.process_time()
            call(number)
            ranks.wait()
            seconds.append(time.perf_counter() - started)
            spent.append(time.process_time() - spent_before)
        say(f"    process {rank} of {size}: {min(seconds):.4g} s, {min(spent):.4g} s of a core", error=True)
        answers.put({"seconds": seconds, "cpu_seconds": spent, "facts": facts})
        ranks.wait()
    except BaseException as error:
        answers.put(f"process {rank} of {size}: {type(error).__name__}: {error}")


def _step(job: RanksWork, ranks: Ranks, folder: Path) -> tuple[Callable[[int], None], dict[str, Any]]:
    """A training step of 32 images: loss, gradient, and its sum over processes."""
    clip, vocabulary = load_clip(job.clip), Vocabulary.load(job.vocabulary)
    method = SoftPromptMethod(clip, "pomp", n_ctx=CONTEXTS)
    images = F.normalize(torch.randn(BATCH, clip.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = torch.randperm(len(vocabulary), generator=torch.Generator().manual_seed(1))[:BATCH]
    settings = LearningSettings(num_classes=job.names, chunk_size=job.chunk_size)
    own = image_places(BATCH, 1, settings, ranks)[ranks.rank]
    sampler, parameters = UniformSampler(len(vocabulary)), list(method.parameters())

    def call(number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        loss, right = method_step(method, vocabulary, images[own], labels, settings, sampler, generator, ranks=ranks)
        method.zero_grad(set_to_none=True)
        loss.backward()
        ranks.sum_gradients(parameters, loss, right.sum())

    names = vocabulary.names
    if job.names:
        drawn, _ = sampler(job.names - 1, torch.Generator().manual_seed(1))
        names = [names[row] for row in torch.unique(torch.cat([labels, drawn])).tolist()]
    sequences = method.encoder.tokenizer.prompts(names, CONTEXTS)
    tokens = sequences.prefix_length + int((sequences.lengths - sequences.prefix_length).sum())
    return call, {"names": len(names), "tokens": tokens, "width": clip.embed_dim, "images": BATCH}


def _photos(job: RanksWork, ranks: Ranks, folder: Path) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Photos through the image tower into a cache, anew at each call."""
    clip, root = load_clip(job.clip), folder / f"photos {ranks.rank}"  # a folder for each: it does not matter whose
    keys = [f"{number}.jpg" for number in range(job.photos)]
    root.mkdir()
    generator = np.random.default_rng(0)
    for key in keys:
        coarse = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BICUBIC).save(root / key)
    images = ImageSet(["all"], ["all"], np.zeros(job.photos, dtype=np.int64), keys, "generated photos", root)

    def call(number: int) -> None:
        with patch.object(encode_photos, "BLOCK_VIEWS", job.block):
            cached_features(clip, images, 0, None, 0, folder / f"cache {number}", job.block, 0, ranks=ranks)

    return call, {"photos": job.photos}


def _reductions(job: RanksWork, ranks: Ranks, folder: Path) -> tuple[Callable[[int], None], dict[str, Any]]:
    """What a step sends: class features, their gradients, and the gradient of the prompt."""
    width, prompt = WIDTH, WIDTH * CONTEXTS
    halves = [torch.arange(rank, job.names, ranks.size) for rank in range(ranks.size)]
    part = torch.zeros(len(halves[ranks.rank]), width, requires_grad=True)

    def call(number: int) -> None:
        ranks.any(False)
        ranks.gather_rows(part, halves).sum().backward()
        ranks.add(torch.zeros(prompt))

    return call, {"bytes": 4 * (2 * job.names * width + prompt)}


WORKS: dict[str, Callable[[RanksWork, Ranks, Path], tuple[Callable[[int], None], dict[str, Any]]]] = {
    "step": _step,
    "photos": _photos,
    "reductions": _reductions,
}
