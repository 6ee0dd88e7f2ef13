"""A method with dropout: it draws within a step of learning only, and the same in a resumed run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_core import SoftPrompt, TextClassifier, UniformSampler, load_clip
from prompt_core.clip import Clip
from prompt_core.config import load_config
from prompt_core.methods.base import Method, seeded
from prompt_core.methods.registry import METHODS, build_method, load_method
from prompt_core.methods.templates import TemplateFeatures
from prompt_core.training.artifacts import load_state, save_state
from prompt_core.training.loop import LearningState, learn
from prompt_core.training.step import LearningSettings
from prompt_core.vocabulary import Vocabulary

Make = Callable[..., Any]
NAME = "adapter_with_dropout"


class AdapterWithDropout(Method):
    @dataclass(frozen=True)
    class Options:
        seed: int = 0

    def __init__(self, clip: Clip, name: str = NAME, **options: Any) -> None:
        super().__init__(clip, name, **options)
        with seeded(self.options.seed):
            self.change = nn.Sequential(nn.Dropout(0.5), nn.Linear(clip.embed_dim, clip.embed_dim))
        self.texts = TemplateFeatures(["a photo of a {}."])

    def image_features(self, inputs: Tensor) -> Tensor:
        return F.normalize(inputs + self.change(inputs), dim=-1)

    def class_features(self, vocabulary: Any, rows: Any = None, *_: Any, **__: Any) -> Tensor:
        return self.texts(self.encoder, vocabulary, rows)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, NAME, AdapterWithDropout)


def twice(method: Method, inputs: Tensor, vocabulary: Vocabulary) -> float:
    with torch.no_grad():
        return float((method.logits(inputs, vocabulary) - method.logits(inputs, vocabulary)).abs().max())


def test_what_comes_out_of_a_loader_evaluates(
    clip: Clip, batches_for: Make, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    fresh = AdapterWithDropout(clip)
    inputs, _ = batches_for(fresh).batch(torch.arange(4).numpy(), 0, torch.Generator())
    assert twice(fresh, inputs, vocabulary) > 0.1, "dropout shows"
    fresh.save(tmp_path / "method.safetensors")
    for method in (
        load_method(tmp_path / "method.safetensors", clip),
        build_method(load_config(None, ["METHOD.NAME", NAME]), clip),
    ):
        assert twice(method, inputs, vocabulary) == 0
        assert not any(module.training for module in method.modules())


def test_models_prompts_and_classifiers_evaluate(clip: Clip, vocabulary: Vocabulary, tmp_path: Path) -> None:
    assert not any(module.training for module in load_clip("mini").model.modules())
    prompt = SoftPrompt.random(32, 2)
    prompt.save(tmp_path / "prompt.safetensors")
    assert not SoftPrompt.load(tmp_path / "prompt.safetensors").training
    clip.model.train()
    again = Clip(clip.model, clip.name, clip.pretrained, clip.preprocess_cfg, clip.tokenizer)
    assert not any(module.training for module in again.model.modules())
    first, second = (TextClassifier.build(again, vocabulary, prompt).weight for _ in range(2))
    assert torch.equal(first, second)


def test_it_learns_with_dropout_evaluates_in_between_and_resumes_bit_for_bit(
    clip: Clip, batches_for: Make, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    settings = LearningSettings(num_classes=4, epochs=2, batch=10, learning_rate=0.02, warmup_epochs=0)
    batches = batches_for(AdapterWithDropout(clip))
    inputs, _ = batches.batch(torch.arange(4).numpy(), 0, torch.Generator())

    def run(method: Method, state: LearningState, stop_after: int | None = None) -> None:
        torch.manual_seed(state.step)  # a resumed process has another global generator
        start = state.step

        def stop() -> bool:
            return state.step - start == stop_after

        for _ in learn(method, vocabulary, batches, settings, UniformSampler(6), state, stop):
            assert twice(method, inputs, vocabulary) == 0

    whole, state = AdapterWithDropout(clip), LearningState()
    run(whole, state)
    half, part = LearningState(), AdapterWithDropout(clip)
    run(part, half, 1)
    save_state(tmp_path / "state.pt", half, part, {})
    resumed = AdapterWithDropout(clip)
    run(resumed, load_state(tmp_path / "state.pt", resumed, {}))
    assert resumed.sha256() == whole.sha256()
    without = AdapterWithDropout(clip)
    without.change[0].p = 0.0  # type: ignore[union-attr]
    run(without, LearningState())
    assert without.sha256() != whole.sha256(), "steps learn with dropout"
