"""What has to give on the stand-in for a GPU what it gives on the CPU; a program that is told what to run.

Each prints a line of JSON: its name, and how often the host waited for the device at which places.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import open_clip
import torch

from prompt_core import PromptedTextEncoder, SoftPrompt, UniformSampler, Vocabulary
from prompt_core.clip import Clip
from prompt_core.methods.base import Method
from prompt_core.methods.registry import METHODS
from prompt_core.training.loop import LearningState, learn
from prompt_core.training.step import LearningSettings

from ..prompt_core.conftest import NAMES, OPTIONS, PixelBatches
from .stand_in_both import Waits, note, on_both
from .stand_in_device import NAME, MixedDevices, StandIn, register

tokenizer = functools.cache(open_clip.SimpleTokenizer)


def tiny_clip() -> Clip:
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
    vision = {"image_size": 32, "layers": 3, "width": 48, "head_width": 16, "patch_size": 8}
    torch.manual_seed(0)
    model = open_clip.CLIP(24, vision, text, quick_gelu=True)
    return Clip(model.eval().requires_grad_(False).double(), "tiny", None, {}, tokenizer())


def refused(work: Callable[[], Any], error: type[Exception] = MixedDevices) -> bool:
    """Whether work raises an error."""
    try:
        work()
    except error:
        return True
    return False


def rules() -> Waits:
    """What the stand-in refuses, what it counts, and what neither."""
    with StandIn() as stand_in:
        there, here, index = torch.randn(3, 4, device=NAME), torch.zeros(3, 4), torch.tensor([0, 2])
        generator, number, place = torch.Generator(), torch.tensor(2.0), index.to(NAME)
        assert refused(lambda: there + here)
        assert refused(lambda: here.add_(there))
        assert refused(lambda: number.add_(there.sum()))
        assert refused(lambda: here[place])
        assert refused(lambda: there.index_select(0, index))
        assert refused(lambda: there @ here.T)
        assert refused(lambda: torch.cat([there, here]))
        assert refused(lambda: torch.where(here > 0, there, there))
        assert refused(lambda: there.index_put_((index,), here[:2]))
        assert refused(lambda: torch.rand(3, generator=generator, device=NAME))
        assert refused(lambda: np.asarray(there), Exception)
        counted = {
            "item": lambda: [float(there.sum()), bool((there > 0).any()), there[place[0]], torch.tensor([there.sum()])],
            "read": lambda: [there.cpu(), there.tolist(), here.copy_(there)],
            "write": lambda: [here.to(NAME), torch.tensor([1.0], device=NAME), there[index], there[[0, 2]]],
            "mask": lambda: [there[there > 0], there.__setitem__(there > 0, there.abs()[there > 0])],
            "nonzero": lambda: [there.nonzero(), torch.where(there > 0)],
            "_unique2": lambda: [place.unique()],
            "repeat_interleave": lambda: [place.repeat_interleave(place)],
        }
        for why, work in counted.items():
            stand_in.waits.clear()
            expected = len(work()) + (why == "mask")
            assert sum(count for wait, count in stand_in.waits.items() if wait.why == why) == expected, why
            assert all(wait.file.endswith("stand_in_gpu.py") for wait in stand_in.waits)
        stand_in.waits.clear()
        there[there > 0] = 0.0
        for free in (there * number, torch.where(there > 0, there, number), there[0], there[place], there.argsort()):
            assert free.device.type == NAME
        assert not stand_in.waits, stand_in.waits
    return {}


def towers() -> Waits:
    """Image features, and texts at full length with their gradient."""
    return on_both(_towers)


def _towers(device: str, waits: Waits) -> dict[str, Any]:
    clip, prompt = tiny_clip(), SoftPrompt.random(32, 4)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clip.model.to(device)
    prompt.double().to(device)
    texts = PromptedTextEncoder(clip)(prompt, NAMES, reference=True)
    texts.square().sum().backward()
    return {"images": clip.encode_image(pixels.to(device)), "texts": texts, "gradient": prompt.context.grad}


PLAIN = LearningSettings(num_classes=4, epochs=2, batch=4, views=1, warmup_epochs=0, learning_rate=0.05)
RUNS = {
    **{name: (name, PLAIN) for name in OPTIONS if name != "coop"},
    "full": ("coop", replace(PLAIN, num_classes=0, chunk_size=3)),
    "full, of each image": ("cocoop", replace(PLAIN, num_classes=0)),
    "per group": ("pomp", replace(PLAIN, correction="ln", draws="per_group", group=3, chunk_size=2)),
}


def learning() -> Waits:
    """Learning a soft prompt: the host may wait for what a run starts with, and where the loop reads."""
    waits: Waits = {}
    for packed in (0.0, float("inf")):
        with patch("prompt_core.text.encoder.PACKED_MINIMUM_WORK", packed):
            waits |= on_both(functools.partial(_learned, "sampled", "coop", PLAIN))
    return waits


def methods() -> Waits:
    """The same with the other losses and methods."""
    waits: Waits = {}
    with patch("prompt_core.text.encoder.PACKED_MINIMUM_WORK", 0.0):
        for name, run in RUNS.items():
            waits |= on_both(functools.partial(_learned, name, *run))
    return waits


def _learned(run: str, name: str, settings: LearningSettings, device: str, waits: Waits) -> dict[str, Any]:
    """What is learned; waits are those of steps that the loop does not read after."""
    clip = tiny_clip()
    method: Method = METHODS[name](clip, name, **OPTIONS[name]).double()
    inputs = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if method.reads != "images":
        with torch.no_grad():
            inputs = clip.image_features(inputs, normalise=method.reads == "features")
    clip.model.to(device)
    method.to(device)
    vocabulary, batches = Vocabulary(NAMES, ids=list(range(len(NAMES)))), PixelBatches(inputs, np.arange(12) % 5)
    state, sampler, unread = LearningState(), UniformSampler(len(NAMES)), 0
    for report in learn(method, vocabulary, batches, settings, sampler, state, read_seconds=1e9):
        unread += not report.is_read
        if device == NAME and not report.is_read:
            note(waits, run)
        elif device == NAME:
            StandIn.now.waits.clear()
    assert unread == 2  # one in the middle of each epoch
    assert all(parameter.device.type == device for parameter in method.parameters())
    return {**method.state_module.state_dict(), "loss": [epoch["loss"] for epoch in state.history]}


def main() -> None:
    """Registers the device and runs what the command line names."""
    from .stand_in_heads import detector, per_pixel, segmenter

    works = {work.__name__: work for work in (rules, towers, learning, methods, detector, segmenter, per_pixel)}
    register()
    torch.set_num_threads(1)  # the models are tiny
    for name in sys.argv[1:]:
        print(json.dumps([name, works[name]()]), flush=True)


if __name__ == "__main__":
    main()
