"""Shared by all tests: tiny random models and the real inputs, where they are at hand."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("POMP_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real inputs and golden outputs; tests that need it skip where it is absent."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no real inputs at {SHARED}; set POMP_SHARED to their folder")
    return SHARED


@pytest.fixture(scope="session")
def make_tiny_clip() -> Callable[..., Any]:
    """Builds a random CLIP that encodes a name in a millisecond; keywords change its text tower."""
    import open_clip

    from prompt_core.clip import Clip

    def make(seed: int = 0, dtype: torch.dtype = torch.float32, custom_text: bool = False, **text_cfg: Any) -> Clip:
        torch.manual_seed(seed)
        text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3} | text_cfg
        vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
        quick_gelu = text.pop("quick_gelu", True)
        builder = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
        model = builder(24, vision, text, quick_gelu=quick_gelu)
        # The initial spread leaves attention almost uniform, which would hide mistakes in masks and positions.
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 2 and "visual" not in name:
                    parameter.mul_(3)
        tokenizer = open_clip.SimpleTokenizer(context_length=text["context_length"])
        preprocess = {
            "size": 32,
            "mode": "RGB",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            "fill_color": 0,
        }
        return Clip(model.to(dtype), "tiny", None, preprocess, tokenizer)

    return make


@pytest.fixture(scope="session")
def tiny_clip(make_tiny_clip: Callable[..., Any]) -> Any:
    """One tiny random CLIP in float32."""
    return make_tiny_clip()


@pytest.fixture(autouse=True)
def _no_logs_to_closed_terminals() -> None:
    """Tools that ran in this process before may have left handlers on the captured stream of their test."""
    for logger in map(logging.getLogger, list(logging.root.manager.loggerDict)):
        for handler in list(logger.handlers):
            if getattr(getattr(handler, "stream", None), "closed", False):
                logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def _quiet_random_weights() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weights are random")
        yield
