"""Prompt learners: the layouts of prompts, what learns, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from hypothesis import given, settings
from hypothesis import strategies as st

from pomp_seg.prompts.build import VILD_TEMPLATES
from pomp_seg.prompts.prompt_learner import ClassFeatures, PompPrompt, TemplatePrompt, ZssegPrompt
from prompt_core.data.catalog.hand_written import imagenet_templates
from prompt_core.errors import UserError
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder

from ..support.towers import shrunk_clip


@pytest.fixture(scope="module")
def encoder(make_tiny_clip: Callable[..., Any]) -> PromptedTextEncoder:
    return PromptedTextEncoder(make_tiny_clip(dtype=torch.float64))


def test_full_stop_is_a_token_of_its_own(encoder: PromptedTextEncoder) -> None:
    tokenizer = encoder.tokenizer
    sot, eot = tokenizer.tokenizer.sot_token_id, tokenizer.tokenizer.eot_token_id
    sequences = tokenizer.separate_prompts(["bow_(weapon)"], 2, 1)
    name = tokenizer.tokenizer.encode("bow_(weapon)")
    assert sequences.ids[0, : sequences.lengths[0]].tolist() == [sot, -1, -2, *name, -3, 269, eot]
    # Joined, the bracket and the full stop are one token, and the underscore is a space.
    joined = tokenizer.prompts(["bow_(weapon)"], 2)
    assert joined.lengths[0] < sequences.lengths[0] - 1


@settings(max_examples=20, deadline=None)
@given(names=st.lists(st.text("abcdef_(). ", min_size=1, max_size=12), min_size=1, max_size=6))
def test_fast_features_equal_the_plain_77_tokens(encoder: PromptedTextEncoder, names: list[str]) -> None:
    context = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sequences = encoder.tokenizer.separate_prompts(names, 2, 1)
    fast = encoder.encode_sequences(sequences, context)
    plain = encoder.encode_sequences(sequences, context, reference=True)
    torch.testing.assert_close(fast, plain, atol=1e-10, rtol=0)


def test_layouts_agree_where_nothing_merges(encoder: PromptedTextEncoder) -> None:
    separate, joined = PompPrompt(32, 4), PompPrompt(32, 4, "joined")
    joined.ctx = separate.ctx
    plain = ["traffic light", "tree"]
    torch.testing.assert_close(separate(plain, encoder), joined(plain, encoder))
    special = ["bow_(weapon)"]
    assert float((separate(special, encoder) - joined(special, encoder)).detach().abs().max()) > 1e-3
    # Joined is the layout that prompts are learned with.
    expected = encoder(SoftPrompt(joined.ctx.detach()), special)
    torch.testing.assert_close(joined(special, encoder), expected)


def test_own_prompt_of_zsseg_uses_both_sides(encoder: PromptedTextEncoder) -> None:
    learner = ZssegPrompt(32, 3, 2)
    assert {name for name, _ in learner.named_parameters()} == {"prefix_prompt", "suffix_prompt"}
    before = learner(["cat"], encoder)
    before[0, 0].backward()
    for parameter in learner.parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad.abs().sum(dim=1) > 0).all())
    without = ZssegPrompt(32, 3, 0)
    assert without.suffix_prompt is None
    with pytest.raises(UserError, match="joined layout"):
        PompPrompt.__mro__[1](32, 3, 2, "joined")  # type: ignore[call-arg]


def test_templates_average_unit_features(encoder: PromptedTextEncoder) -> None:
    templates = ("a {}.", "the big_{}")
    features = TemplatePrompt(templates)(["cat", "bow_(weapon)"], encoder)
    parts = [
        encoder.encode_texts([template.replace("{}", name) for name in ("cat", "bow_(weapon)")])
        for template in templates
    ]
    expected = torch.nn.functional.normalize((parts[0] + parts[1]) / 2, dim=1)
    torch.testing.assert_close(features, expected)
    assert len(VILD_TEMPLATES) == 14
    assert len(set(imagenet_templates())) == 80
    with pytest.raises(UserError, match="no template"):
        TemplatePrompt([])


def test_names_are_encoded_once_while_nothing_learns(
    encoder: PromptedTextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = PompPrompt(32, 4)
    seen: list[list[str]] = []
    plain = learner.forward
    monkeypatch.setattr(learner, "forward", lambda names, encoder: seen.append(list(names)) or plain(names, encoder))
    features = ClassFeatures(learner, encoder)
    assert features(["cat"]).requires_grad  # it learns
    with torch.no_grad():
        features(["cat", "dog", "cat"])
        features(["dog"])
        assert seen == [["cat"], ["cat", "dog"]]
        learner.ctx.add_(1.0)  # an optimiser's step, or a loaded file
        changed = features(["dog"])
    assert seen[-1] == ["dog"]
    torch.testing.assert_close(changed, plain(["dog"], encoder).detach())
    learner.requires_grad_(False)
    assert features(["dog"]) is not None
    assert len(seen) == 3


def test_templates_on_a_tower_without_learned_contexts() -> None:
    clip = shrunk_clip("ViT-B-16-SigLIP")
    encoder, learner = PromptedTextEncoder(clip), TemplatePrompt(["a {}", "the {}."])
    learner.connect(clip)
    features = ClassFeatures(learner, encoder)
    names = ["red_fox", "cat"]
    with torch.no_grad():
        theirs = [clip.model.encode_text(clip.tokenizer([f"a {name}", f"the {name}."]), True) for name in names]  # type: ignore[operator]
        expected = torch.nn.functional.normalize(torch.stack([unit.mean(dim=0) for unit in theirs]), dim=1)
        torch.testing.assert_close(features(names), expected, atol=1e-6, rtol=0)
        next(clip.model.text.parameters()).mul_(2)  # type: ignore[union-attr, operator]
        assert not torch.allclose(features(names), expected), "kept features are of the weights that they come from"
    with pytest.raises(UserError, match="takes hand-written templates only"):
        PompPrompt(32, 4).connect(clip)
