"""What holds for every method: what learns and what does not, sampled and full losses, resuming, files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prompt_core import HardSampler, SoftPrompt, UniformSampler, UserError
from prompt_core.clip import Clip
from prompt_core.methods.base import Method
from prompt_core.methods.registry import load_method, method_file_metadata
from prompt_core.training.artifacts import load_state, save_state
from prompt_core.training.loop import LearningState, learn
from prompt_core.training.step import LearningSettings, method_step
from prompt_core.vocabulary import Vocabulary

LEARNED = {
    "coop": {"prompt.context"},
    "pomp": {"prompt.context"},
    "cocoop": {"text_context", "meta_net.0.weight", "meta_net.0.bias", "meta_net.2.weight", "meta_net.2.bias"},
    "maple": {"text_context", "deep_text_context"}
    | {f"to_vision.{i}.{part}" for i in range(3) for part in ("weight", "bias")},
    "ivlp": {"text_context", "deep_text_context", "tokens"},
    "vpt": {"tokens"},
    "lasp": {"text_context", "shift", "norms.weight", "norms.bias"},
    "linear_probe": {"layer.weight", "layer.bias"},
}
Make = Callable[..., Any]
every_method = pytest.mark.parametrize("name", LEARNED)


def step(method: Method, batches: Any, vocabulary: Vocabulary, settings: LearningSettings) -> torch.Tensor:
    rows = torch.arange(len(batches.labels))[:8].numpy()
    inputs, labels = batches.batch(rows, 0, torch.Generator())
    loss, right = method_step(
        method, vocabulary, inputs, labels, settings, UniformSampler(len(vocabulary)), torch.Generator().manual_seed(1)
    )
    assert right.shape == (8,)
    return loss


@every_method
@pytest.mark.parametrize("num_classes", [0, 4])
def test_the_gradient_reaches_what_is_learned_and_nothing_of_clip(
    make_clip: Make, make_method: Make, batches_for: Make, vocabulary: Vocabulary, name: str, num_classes: int
) -> None:
    clip = make_clip()
    before = copy.deepcopy(clip.model.state_dict())
    method = make_method(name, clip)
    if name == "cocoop":
        # A hidden unit that is off for every image passes no gradient, which is no mistake.
        with torch.no_grad():
            method.meta_net[0].bias.fill_(1.0)
    assert set(dict(method.named_parameters())) == LEARNED[name]
    assert set(method.state_module.state_dict()) == {key.removeprefix("prompt.") for key in LEARNED[name]}
    grouped = [parameter for group in method.parameter_groups() for parameter in group["params"]]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in method.parameters()}
    settings = LearningSettings(num_classes=num_classes)
    optimizer = torch.optim.SGD(method.parameter_groups(), lr=0.1)
    step(method, batches_for(method), vocabulary, settings).backward()
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None, key
        # Each vector of stacked ones: all layers, all tokens. Class-specific contexts learn where they are needed.
        norms = parameter.grad.flatten(0, -2).norm(dim=-1) if parameter.dim() > 1 else parameter.grad.norm()
        assert bool((norms > 0).any() if name == "pomp" else (norms > 0).all()), key
    optimizer.step()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in clip.model.parameters())
    after = clip.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@every_method
def test_a_few_steps_lower_the_loss(
    clip: Clip, make_method: Make, batches_for: Make, vocabulary: Vocabulary, name: str
) -> None:
    method = make_method(name, clip)
    settings = LearningSettings(num_classes=0, epochs=6, batch=10, learning_rate=0.02, warmup_epochs=0)
    state = LearningState()
    batches = batches_for(method)
    for _ in learn(method, vocabulary, batches, settings, UniformSampler(6), state, clip_grad_norm=5.0):
        pass
    assert state.history[-1]["loss"] < 0.97 * state.history[0]["loss"]


@every_method
def test_all_classes_sampled_is_the_full_softmax(
    make_clip: Make, make_method: Make, batches_for: Make, vocabulary: Vocabulary, name: str
) -> None:
    method = make_method(name, make_clip(torch.float64))
    losses = []
    for count in (0, 6):
        settings = LearningSettings(num_classes=count, correction="ln")
        generator = torch.Generator().manual_seed(1)
        inputs, labels = batches_for(method).batch(torch.arange(8).numpy(), 0, generator)

        class All:
            def __call__(self, count: int, generator: Any, features: Any = None) -> Any:
                return torch.arange(6), None

        loss, _ = method_step(method, vocabulary, inputs, labels, settings, All(), torch.Generator().manual_seed(1))
        losses.append((loss, torch.autograd.grad(loss, list(method.parameters()))))
    torch.testing.assert_close(losses[0][0], losses[1][0], atol=1e-10, rtol=0)
    for ours, theirs in zip(losses[0][1], losses[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)


@every_method
@pytest.mark.parametrize("interrupt", [1, 3])
def test_a_resumed_run_is_bit_identical(
    clip: Clip, make_method: Make, batches_for: Make, vocabulary: Vocabulary, name: str, interrupt: int, tmp_path: Path
) -> None:
    settings = LearningSettings(num_classes=4, epochs=2, batch=10, learning_rate=0.02)
    batches = batches_for(make_method(name, clip))

    def run(method: Method, state: LearningState, stop_after: int | None = None) -> None:
        done = 0

        def stop() -> bool:
            return stop_after is not None and done == stop_after

        for _ in learn(method, vocabulary, batches, settings, UniformSampler(6), state, stop):
            done += 1

    whole, state = make_method(name, clip), LearningState()
    run(whole, state)
    part, half = make_method(name, clip), LearningState()
    run(part, half, interrupt)
    save_state(tmp_path / "state.pt", half, part.state_module, {"a": 1})
    resumed = make_method(name, clip)
    other = load_state(tmp_path / "state.pt", resumed.state_module, {"a": 1})
    run(resumed, other)
    assert state.history == other.history
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    start = make_method(name, clip).state_dict()
    assert not all(torch.equal(ours[key], start[key]) for key in ours)


@every_method
def test_file_round_trip(
    clip: Clip, make_method: Make, batches_for: Make, vocabulary: Vocabulary, name: str, tmp_path: Path
) -> None:
    method = make_method(name, clip)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    path = tmp_path / "method.safetensors"
    method.save(path, K=7)
    metadata = method_file_metadata(path)
    assert metadata is not None
    assert (metadata["method"], metadata["K"], metadata["clip"]) == (name, 7, "tiny")
    loaded = load_method(path, clip)
    assert loaded.sha256() == method.sha256()
    inputs, _ = batches_for(method).batch(torch.arange(3).numpy(), 0, torch.Generator())
    with torch.no_grad():
        theirs = loaded.logits(inputs, vocabulary)
        assert theirs.shape == (3, 6)
        assert torch.equal(method.logits(inputs, vocabulary), theirs)


@every_method
def test_the_seed_decides_where_it_starts(clip: Clip, make_method: Make, name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (make_method(name, clip, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state()), "the global generator is left alone"
    ours, theirs = first.state_dict(), again.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    starts_from_words = name == "lasp"
    assert starts_from_words or any(not torch.equal(ours[key], other.state_dict()[key]) for key in ours)


def test_files_of_another_clip_or_damaged(make_clip: Make, make_method: Make, tmp_path: Path) -> None:
    clip, path = make_clip(), tmp_path / "method.safetensors"
    method = make_method("vpt", clip)
    method.save(path)
    with pytest.raises(UserError, match="learned with the weights tiny, None, which are not those of tiny"):
        load_method(path, make_clip(seed=5))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="truncated"):
        load_method(path, clip)
    with pytest.raises(UserError, match="does not exist"):
        load_method(tmp_path / "none.safetensors", clip)
    make_method("coop", clip).prompt.save(path)
    with pytest.raises(UserError, match="holds no method"):
        load_method(path, clip)
    with pytest.raises(UserError, match=r"does not hold the tensors of method vpt .*\(tokens differ\)"):
        method.load_tensors({"tokens": torch.zeros(1, 2, 48)}, "file")
    with pytest.raises(UserError, match="not finite"):
        method.load_tensors({"tokens": torch.full_like(method.tokens, float("nan"))}, "file")


@pytest.mark.parametrize("name", ["cocoop", "linear_probe"])
def test_hard_negatives_need_class_features(
    clip: Clip, make_method: Make, batches_for: Make, vocabulary: Vocabulary, name: str
) -> None:
    method = make_method(name, clip)
    with pytest.raises(UserError, match=f"method {name} has no class features to choose hard negatives by"):
        next(learn(method, vocabulary, batches_for(method), LearningSettings(), HardSampler(6), LearningState()))


@pytest.mark.parametrize("name", ["maple", "vpt"])
def test_hard_negatives_of_other_methods_resume_too(
    clip: Clip, make_method: Make, batches_for: Make, vocabulary: Vocabulary, name: str, tmp_path: Path
) -> None:
    settings = LearningSettings(num_classes=4, epochs=2, batch=5, learning_rate=0.02, hard_refresh=3)
    results = []
    for interrupt in (None, 2):
        method, state, done = make_method(name, clip), LearningState(), 0
        reports = learn(
            method,
            vocabulary,
            batches_for(method),
            settings,
            HardSampler(6),
            state,
            lambda: done == interrupt,  # noqa: B023
        )
        for _ in reports:
            done += 1
        if interrupt is not None:
            save_state(tmp_path / "state.pt", state, method.state_module, {})
            method = make_method(name, clip)
            state = load_state(tmp_path / "state.pt", method.state_module, {})
            for _ in learn(method, vocabulary, batches_for(method), settings, HardSampler(6), state):
                pass
        results.append(method.sha256())
    assert results[0] == results[1]


def test_the_gradient_is_cut_to_its_largest_norm(
    clip: Clip, make_method: Make, batches_for: Make, vocabulary: Vocabulary
) -> None:
    """Without momentum and weight decay, a step is the rate times the gradient; the norms learn at a tenth of it."""
    settings = LearningSettings(epochs=1, batch=20, learning_rate=0.5, warmup_epochs=0, momentum=0.0, weight_decay=0.0)
    moved = []
    for largest in (None, 1e-3):
        method, before = make_method("lasp", clip), make_method("lasp", clip).state_dict()
        batches = batches_for(method)
        for _ in learn(
            method, vocabulary, batches, settings, UniformSampler(6), LearningState(), clip_grad_norm=largest
        ):
            pass
        steps = {
            key: (value - before[key]) / (0.05 if key.startswith("norms") else 0.5)
            for key, value in method.state_dict().items()
        }
        moved.append(float(torch.cat([step.flatten() for step in steps.values()]).norm()))
    assert moved[0] > 0.01
    assert moved[1] == pytest.approx(1e-3, rel=1e-2)


def test_the_warm_up_has_one_rate_for_all_groups(
    clip: Clip, make_method: Make, batches_for: Make, vocabulary: Vocabulary
) -> None:
    """Dassl's constant warm-up; afterwards the norms learn at a tenth of the rate."""
    settings = LearningSettings(epochs=2, batch=20, learning_rate=0.02, warmup_epochs=1, warmup_learning_rate=0.001)
    method, state, rates = make_method("lasp", clip), LearningState(), []
    for _ in learn(method, vocabulary, batches_for(method), settings, UniformSampler(6), state):
        assert state.optimizer is not None
        rates.append([group["lr"] for group in state.optimizer["param_groups"]])
    assert rates == [[0.001, 0.001], [0.02, 0.002]]


def test_states_of_before_there_were_methods_resume(
    clip: Clip, make_method: Make, batches_for: Make, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    """They hold the hard sampler's context as a tensor."""
    settings = LearningSettings(num_classes=4, epochs=2, batch=5, learning_rate=0.02, hard_refresh=3)

    def run(method: Method, state: LearningState, steps: int | None = None) -> None:
        batches, before = batches_for(method), state.epoch * 4 + state.step

        def stop() -> bool:
            return state.epoch * 4 + state.step - before == steps

        for _ in learn(method, vocabulary, batches, settings, HardSampler(6), state, stop):
            pass

    whole, part, half = make_method("coop", clip), make_method("coop", clip), LearningState()
    run(whole, LearningState())
    run(part, half, 5)
    assert isinstance(half.bank_context, dict)
    half.bank_context = half.bank_context["context"]
    save_state(tmp_path / "state.pt", half, part.state_module, {})
    resumed = make_method("coop", clip)
    run(resumed, load_state(tmp_path / "state.pt", resumed.state_module, {}))
    assert torch.equal(whole.prompt.context, resumed.prompt.context)


@pytest.mark.parametrize("name", ["coop", "cocoop", "linear_probe"])
def test_methods_on_the_text_side_take_any_image_tower(
    make_clip: Make, make_method: Make, batches_for: Make, vocabulary: Vocabulary, name: str
) -> None:
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    clip = make_clip()
    residual = CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=32)
    clip.model.visual = _build_vision_tower(24, residual).eval().requires_grad_(False)
    method = make_method(name, clip)
    loss = step(method, batches_for(method), vocabulary, LearningSettings(num_classes=0))
    assert all(float(gradient.norm()) > 0 for gradient in torch.autograd.grad(loss, list(method.parameters())))


@pytest.mark.parametrize("name", ["cocoop", "maple", "ivlp", "vpt", "lasp", "linear_probe"])
def test_files_of_methods_are_not_taken_for_prompts(clip: Clip, make_method: Make, name: str, tmp_path: Path) -> None:
    make_method(name, clip).save(tmp_path / "method.safetensors")
    with pytest.raises(UserError, match="it is not a prompt file"):
        SoftPrompt.load(tmp_path / "method.safetensors")
