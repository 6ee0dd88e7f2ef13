"""Tiny models whose vision tower, text tower and joint space differ in width, and a small problem to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prompt_core.clip import Clip
from prompt_core.methods.base import Method
from prompt_core.methods.registry import METHODS
from prompt_core.vocabulary import Vocabulary

NAMES = ["cat", "red fox", "old_oak", "crane", "cap (headwear)", "crane"]


@pytest.fixture(scope="session")
def make_clip(make_tiny_clip: Callable[..., Clip]) -> Callable[..., Clip]:
    """``make_tiny_clip`` with another vision transformer: width 48, three blocks; keywords change it."""

    def make(dtype: torch.dtype = torch.float32, seed: int = 0, **vision: Any) -> Clip:
        from open_clip.model import CLIPVisionCfg, _build_vision_tower

        clip = make_tiny_clip(seed=seed, dtype=dtype)
        torch.manual_seed(seed + 1)
        cfg = {"image_size": 32, "layers": 3, "width": 48, "head_width": 16, "patch_size": 8} | vision
        visual = _build_vision_tower(24, CLIPVisionCfg(**cfg), quick_gelu=True)
        with torch.no_grad():
            for name, parameter in visual.named_parameters():
                # Norms away from 1 and 0, and attention away from uniform, so that mistakes show.
                if "ln_" in name:
                    parameter.add_(0.2 * torch.randn_like(parameter))
                elif parameter.dim() == 2:
                    parameter.mul_(2)
        clip.model.visual = visual.eval().requires_grad_(False).to(dtype=dtype)
        return clip

    return make


@pytest.fixture(scope="session")
def clip(make_clip: Callable[..., Clip]) -> Clip:
    return make_clip()


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(NAMES, ids=list(range(len(NAMES))))


# What builds each learned method on a tiny model, in addition to the model.
OPTIONS: dict[str, dict[str, Any]] = {
    "coop": {"n_ctx": 3},
    "pomp": {"n_ctx": 3, "names": NAMES},
    "cocoop": {"n_ctx": 4, "reduction": 4},
    "maple": {"depth": 3},
    "ivlp": {"depth": 3, "vision_depth": 2, "tokens": 4},
    "vpt": {"tokens": 4},
    "lasp": {"templates": 3},
    "linear_probe": {"names": NAMES},
}


@pytest.fixture(scope="session")
def make_method() -> Callable[..., Method]:
    def make(name: str, clip: Clip, **options: Any) -> Method:
        return METHODS[name](clip, name, **{**OPTIONS[name], **options}).to(clip.dtype)

    return make


@dataclass
class PixelBatches:
    """Made-up images that differ by class, as the method reads them."""

    inputs: Tensor
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, chosen: np.ndarray, epoch: int, generator: torch.Generator, own: range | None = None
    ) -> tuple[Tensor, Tensor]:
        rows = chosen if own is None else chosen[own.start : own.stop]
        return self.inputs[rows], torch.from_numpy(self.labels[chosen])

    def expect(self, chosen: np.ndarray, epoch: int) -> None:
        """Nothing is prepared."""


@pytest.fixture(scope="session")
def batches_for() -> Callable[..., PixelBatches]:
    """Images of 5 classes, or their features, as a method reads them."""

    def make(method: Method, count: int = 20, seed: int = 0) -> PixelBatches:
        generator = torch.Generator().manual_seed(seed)
        labels = np.arange(count) % 5
        patterns = torch.randn(5, 3, 32, 32, generator=generator)
        pixels = patterns[labels] + 0.3 * torch.randn(count, 3, 32, 32, generator=generator)
        pixels = pixels.to(method.clip.dtype)
        if method.reads == "images":
            return PixelBatches(pixels, labels)
        with torch.no_grad():
            return PixelBatches(method.clip.image_features(pixels, normalise=method.reads == "features"), labels)

    return make
