"""Learning: schedule, bit-identical resume, settings that are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from prompt_core import HardSampler, PromptedTextEncoder, SoftPrompt, UniformSampler, UserError, Vocabulary
from prompt_core.clip import Clip
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.methods.templates import TemplateFeatures
from prompt_core.training.anchor import Anchor
from prompt_core.training.artifacts import load_state, save_state
from prompt_core.training.batches import FeatureBatches
from prompt_core.training.loop import LearningState, StepReport, epoch_learning_rates, learn
from prompt_core.training.step import LearningSettings

NAMES = ["cat", "dog", "red fox", "crane", "crane", "oak tree", "old man of the woods", "cap"]


@pytest.fixture(scope="module")
def encoder(make_tiny_clip: Callable[..., Any]) -> PromptedTextEncoder:
    return PromptedTextEncoder(make_tiny_clip())


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_learning_rates_are_the_published_ones() -> None:
    five = epoch_learning_rates(5)
    assert five == pytest.approx([1e-5, 0.002, 0.001809, 0.001309, 0.000691], abs=5e-7)
    twenty = epoch_learning_rates(20)
    assert twenty[:4] == pytest.approx([1e-5, 0.002, 0.001988, 0.001951], abs=5e-7)
    assert twenty[-2:] == pytest.approx([0.000109, 0.000049], abs=5e-7)


def run(
    encoder: PromptedTextEncoder,
    settings: LearningSettings,
    hard: bool = False,
    class_specific: bool = False,
    interrupt: int | None = None,
    path: Any = None,
    anchor: Anchor | None = None,
) -> tuple[SoftPrompt, LearningState]:
    """Learn on 40 made-up images that lie near their class behind another prompt; stop and go on once, if asked to."""
    vocabulary = Vocabulary(NAMES, ids=list(range(len(NAMES))))
    labels = np.arange(40) % len(NAMES)
    with torch.no_grad():
        classes = encoder(SoftPrompt.random(32, 4, std=1.0, seed=5), NAMES)
    features = classes[labels][:, None] + 0.1 * unit(40, 3, 24, seed=6)
    features = torch.nn.functional.normalize(features, dim=-1).half().numpy()

    def start() -> tuple[SoftPrompt, Any]:
        count = len(NAMES) if class_specific else None
        return SoftPrompt.random(32, 4, num_classes=count, seed=settings.seed), (
            HardSampler(len(NAMES)) if hard else UniformSampler(len(NAMES))
        )

    prompt, sampler = start()
    state = LearningState()
    done = 0

    def stop() -> bool:
        return done == interrupt

    batches = FeatureBatches(features, labels, settings.views)

    def steps(stop: Callable[[], bool]) -> Iterator[StepReport]:
        method = SoftPromptMethod.around(encoder, prompt)
        return learn(method, vocabulary, batches, settings, sampler, state, stop, anchor=anchor)

    for _ in steps(stop):
        done += 1
    if interrupt is not None:
        assert done == interrupt
        save_state(path, state, prompt, {"a": 1})
        prompt, sampler = start()
        state = load_state(path, prompt, {"a": 1})
        for _ in steps(lambda: False):
            done += 1
    return prompt, state


SETTINGS = LearningSettings(num_classes=4, epochs=3, batch=10, views=2, learning_rate=0.02, hard_refresh=3)
PER_GROUP = dataclasses.replace(SETTINGS, draws="per_group", group=5)


def test_learning_lowers_the_loss(encoder: PromptedTextEncoder) -> None:
    settings = LearningSettings(num_classes=0, epochs=12, batch=10, views=3, learning_rate=0.05)
    _, state = run(encoder, settings)
    assert len(state.history) == 12
    assert state.history[-1]["loss"] < 0.8 * state.history[0]["loss"]
    assert state.history[-1]["accuracy"] > state.history[0]["accuracy"]


@pytest.mark.parametrize("interrupt", [1, 4, 7])  # within an epoch, at its end, in the middle of the second
@pytest.mark.parametrize("kind", ["uniform", "per_group", "hard", "class_specific", "anchor"])
def test_resumed_run_is_bit_identical(encoder: PromptedTextEncoder, tmp_path: Any, interrupt: int, kind: str) -> None:
    held = Anchor(4.0, Vocabulary(["gown", "ax", "tree frog"]), 2, TemplateFeatures(["a photo of a {}."]))
    options: dict[str, Any] = {"hard": kind == "hard", "class_specific": kind == "class_specific"}
    options["anchor"] = held if kind == "anchor" else None
    settings = PER_GROUP if kind == "per_group" else SETTINGS
    whole, state = run(encoder, settings, **options)
    resumed, other = run(encoder, settings, **options, interrupt=interrupt, path=tmp_path / "state.pt")
    assert torch.equal(whole.context, resumed.context)
    assert state.history == other.history
    assert not torch.equal(whole.context, SoftPrompt.random(32, 4, seed=SETTINGS.seed).context)
    if kind == "anchor":
        assert not torch.equal(whole.context, run(encoder, settings)[0].context)


def test_seed_decides(encoder: PromptedTextEncoder) -> None:
    first, _ = run(encoder, SETTINGS)
    again, _ = run(encoder, SETTINGS)
    other, _ = run(encoder, LearningSettings(**{**vars(SETTINGS), "seed": 7}))
    assert torch.equal(first.context, again.context)
    assert not torch.equal(first.context, other.context)
    grouped, again = (run(encoder, PER_GROUP)[0] for _ in range(2))
    assert torch.equal(grouped.context, again.context)
    assert not torch.equal(grouped.context, first.context), "the draws of the groups differ"


def test_state_of_other_settings_is_refused(tmp_path: Any) -> None:
    prompt = SoftPrompt.random(32, 4)
    path = tmp_path / "state.pt"
    save_state(path, LearningState(epoch=2), prompt, {"seed": 1, "K": 100})
    with pytest.raises(UserError, match="K was 100, now 500"):
        load_state(path, prompt, {"seed": 1, "K": 500})
    assert load_state(path, prompt, {"seed": 1, "K": 100}).epoch == 2
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="truncated"):
        load_state(path, prompt, {"seed": 1, "K": 100})


def test_a_loss_that_is_not_finite_stops_the_run(encoder: PromptedTextEncoder) -> None:
    with pytest.raises(UserError, match=r"loss is .* at epoch \d, step \d"):
        run(encoder, LearningSettings(num_classes=4, epochs=50, batch=10, learning_rate=float("inf"), warmup_epochs=0))


def test_sums_are_read_when_someone_looks(encoder: PromptedTextEncoder) -> None:
    """On a GPU, reading them would make the host wait for each step."""
    features, labels = unit(40, 3, 24).numpy(), np.arange(40) % len(NAMES)
    vocabulary, batches = Vocabulary(NAMES, ids=list(range(len(NAMES)))), FeatureBatches(features, labels, 2)
    found = []
    for read_seconds in (0.0, float("inf")):
        prompt, state = SoftPrompt.random(32, 4), LearningState()
        method, sampler = SoftPromptMethod.around(encoder, prompt), UniformSampler(len(NAMES))
        reports = list(learn(method, vocabulary, batches, SETTINGS, sampler, state, read_seconds=read_seconds))
        found.append((prompt.context.detach(), state.history, reports))
    (context, history, every), (other, others, some) = found
    assert torch.equal(context, other)
    assert history == others
    assert all(report.is_read for report in every)
    assert [report.is_read for report in some] == [report.step in (1, report.steps_per_epoch) for report in some]
    assert [report.loss for report in some if report.is_read] == [
        report.loss for report, late in zip(every, some, strict=True) if late.is_read
    ]


def test_a_loss_that_nobody_read_is_never_saved_over(encoder: PromptedTextEncoder, tmp_path: Any) -> None:
    features, labels = unit(40, 3, 24).numpy(), np.arange(40) % len(NAMES)
    vocabulary, batches = Vocabulary(NAMES, ids=list(range(len(NAMES)))), FeatureBatches(features, labels, 2)
    prompt, state = SoftPrompt.random(32, 4), LearningState()
    method, sampler, path = SoftPromptMethod.around(encoder, prompt), UniformSampler(len(NAMES)), tmp_path / "state.pt"
    steps = learn(method, vocabulary, batches, SETTINGS, sampler, state, read_seconds=float("inf"))
    next(steps)
    save_state(path, state, prompt, {})
    before = path.read_bytes()
    good = prompt.context.detach().clone()
    with torch.no_grad():
        prompt.context.fill_(float("nan"))
    next(steps)
    with torch.no_grad():  # what is learned is finite again, as after a step that was skipped
        prompt.context.copy_(good)
    state.optimizer = None
    for _ in range(2):
        with pytest.raises(UserError, match=r"the loss is nan at epoch 1, step 2; lower OPTIM\.LR"):
            save_state(path, state, prompt, {})
    assert path.read_bytes() == before


def test_only_the_context_learns(tiny_clip: Clip) -> None:
    encoder = PromptedTextEncoder(tiny_clip)
    before = tiny_clip.fingerprint
    run(encoder, SETTINGS)
    del tiny_clip.__dict__["fingerprint"]
    assert tiny_clip.fingerprint == before
