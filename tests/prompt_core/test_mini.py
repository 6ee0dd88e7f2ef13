"""The embedded model: small, complete, and steady under prompts that it never saw."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from prompt_core import PromptedTextEncoder, SoftPrompt, UserError, Vocabulary, load_clip
from prompt_core.clip import Clip

ASSETS = resources.files("prompt_core") / "assets"


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip("mini")


def test_size_and_card() -> None:
    size = len((ASSETS / "mini.safetensors").read_bytes())
    assert 15e6 < size <= 20e6
    assert (ASSETS / "MINI_MODEL_CARD.md").is_file()
    assert json.loads((ASSETS / "mini.json").read_text(encoding="utf-8"))["vision_cfg"]["image_size"] == 192


def test_weights_are_complete_and_finite(clip: Clip) -> None:
    for name, value in clip.model.state_dict().items():
        assert torch.isfinite(value.float()).all(), name
    assert 10 < clip.logit_scale < 100


def test_its_text_tower_takes_the_fast_path_exactly(clip: Clip) -> None:
    encoder = PromptedTextEncoder(clip)
    assert encoder.slow_because is None
    names = ["golden retriever", "fire engine", "Granny Smith", "café"]
    prompt = SoftPrompt.random(encoder.tower.width, 4)
    with torch.no_grad():
        torch.testing.assert_close(encoder(prompt, names), encoder(prompt, names, reference=True), atol=1e-5, rtol=0)


def test_a_random_prompt_leaves_the_names_in_place(clip: Clip) -> None:
    """What the model was trained for: a prefix that means nothing takes little away."""
    encoder = PromptedTextEncoder(clip)
    names = Vocabulary.load("imagenet1k").names[::5]
    plain = encoder.encode_texts([f"a photo of a {name}." for name in names])
    with torch.no_grad():
        random = encoder(SoftPrompt.random(encoder.tower.width, 16, seed=3), names)
    nearest = (random @ plain.T).argmax(dim=1)
    assert (nearest == torch.arange(len(names))).float().mean() > 0.95


def test_an_image_of_another_colour_has_another_feature(clip: Clip) -> None:
    features = []
    for colour in ("red", "blue"):
        picture = Image.new("RGB", (250, 200), "white")
        ImageDraw.Draw(picture).ellipse((60, 40, 180, 160), fill=colour)
        features.append(clip.encode_image(clip.preprocess(picture).unsqueeze(0))[0])
    assert torch.allclose(features[0].norm(), torch.tensor(1.0), atol=1e-4)
    assert features[0] @ features[1] < 0.999


def test_its_prompt_belongs_to_these_weights(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = SoftPrompt.load("mini")
    assert prompt.metadata["clip"] == "mini"
    assert prompt.metadata["clip_sha256"] == clip.fingerprint
    assert prompt.metadata["vocabulary"]["size"] > 21_843
    encoder = PromptedTextEncoder(clip)
    names = Vocabulary.load("coco").names
    with torch.no_grad():
        learned, hand = encoder(prompt, names), encoder.encode_texts([f"a photo of a {name}." for name in names])
    assert 0.8 < float((learned * hand).sum(dim=1).mean()) < 0.9999, "it moved, and not far"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    with pytest.raises(UserError, match="mini is a folder"):
        SoftPrompt.load("mini")  # what the user has by this name comes first
