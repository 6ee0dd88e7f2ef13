"""Which CLIP a command uses: the one given, else the one that the prompt or method was learned with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from prompt_core import SoftPrompt
from prompt_core.command_line import resolve_method, resolve_subject

DEFAULT = ("ViT-B-16-quickgelu", "")


def options(prompt: Path | None, **given: Any) -> argparse.Namespace:
    usual = {"template": [] if prompt else ["a {}"], "ensemble": "", "clip": None, "pretrained": None, "config": None}
    return argparse.Namespace(**usual | {"prompt": str(prompt) if prompt else None, "overrides": []} | given)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    context = torch.randn(4, 512)
    SoftPrompt(context, metadata={"clip": "RN50-quickgelu", "pretrained": "openai"}).save(tmp_path / "a.safetensors")
    SoftPrompt(context, metadata={"clip": "RN50", "pretrained": "my.pt"}).save(tmp_path / "b.safetensors")
    for name in ("vit_b32_ep20_randaug2_seed42.pth.tar", "unknown.pth.tar"):
        torch.save({"state_dict": {"ctx": context}}, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("resolve", [resolve_subject, resolve_method])
@pytest.mark.parametrize(
    ("file", "given", "expected"),
    [
        (None, {}, DEFAULT),
        ("a.safetensors", {}, ("RN50-quickgelu", "openai")),
        ("a.safetensors", {"pretrained": "my.pt"}, ("RN50-quickgelu", "my.pt")),
        ("a.safetensors", {"clip": "ViT-B-32"}, ("ViT-B-32", "")),
        ("a.safetensors", {"overrides": ["MODEL.PRETRAINED", "yfcc15m"]}, ("RN50-quickgelu", "yfcc15m")),
        ("b.safetensors", {}, ("RN50", "")),  # a file of weights has to be given again
        ("vit_b32_ep20_randaug2_seed42.pth.tar", {}, ("ViT-B-32-quickgelu", "openai")),
        ("vit_b32_ep20_randaug2_seed42.pth.tar", {"clip": "mini"}, ("mini", "")),
        ("unknown.pth.tar", {}, DEFAULT),
    ],
)
def test_the_clip_of_a_prompt(
    prompts: Path, resolve: Any, file: str | None, given: dict[str, Any], expected: tuple[str, str]
) -> None:
    cfg, _ = resolve(options(prompts / file if file else None, **given))
    assert expected == (cfg.MODEL.NAME, cfg.MODEL.PRETRAINED)
