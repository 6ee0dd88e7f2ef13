"""Shared by the segmenter's tests: the published files, and a tiny CLIP as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ..support.segmenter import tiny
from ..support.tools import call_tool

__all__ = ["call_tool", "golden_clip", "published", "tiny"]


@pytest.fixture(scope="session")
def published(shared: Path) -> Path:
    """Folder of the published configurations of ZSSeg and POMP."""
    return shared / "data/published_configs/zsseg"


@pytest.fixture
def no_initial_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the weights of full-size models takes most of the time, and tests of building do not look at them."""
    for name in ("uniform_", "normal_"):
        monkeypatch.setattr(torch.Tensor, name, lambda self, *arguments, **options: self)


@pytest.fixture(scope="session")
def golden_clip(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CLIP of the golden segmenter as one OpenAI state dict: text tower of one fixture, image tower of another."""
    text = load_file(shared / "golden/prompt_text/weights.safetensors")
    state = {key: value for key, value in text.items() if not key.startswith("visual.")}
    state |= load_file(shared / "golden/zsseg/clip_visual.safetensors")
    file = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    return file
