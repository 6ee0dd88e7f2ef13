"""A step of learning against its loss written out, and draws of their own for groups of images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from prompt_core import HardSampler, PromptedTextEncoder, SoftPrompt, UniformSampler, UserError, Vocabulary
from prompt_core.clip import Clip
from prompt_core.config import load_config
from prompt_core.methods.base import Method
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.training.recipe import learning_settings, what_decides
from prompt_core.training.step import LearningSettings, image_groups, method_step

NAMES = ["cat", "dog", "red fox", "crane", "crane", "oak tree", "old man of the woods", "cap"]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def encoder(make_tiny_clip: Callable[..., Any]) -> PromptedTextEncoder:
    return PromptedTextEncoder(make_tiny_clip())


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("reject", ["name", "id"])
def test_step_is_the_sampled_loss_written_out(encoder: PromptedTextEncoder, reject: str) -> None:
    vocabulary = Vocabulary(NAMES, ids=list(range(len(NAMES))))
    prompt = SoftPrompt.random(32, 3, std=0.5)
    images, labels = unit(3, 24), torch.tensor([3, 0, 3])
    settings = LearningSettings(num_classes=6, reject=reject, correction="ln")

    class Fixed:
        def __call__(self, count: int, generator: torch.Generator, image_features: Any = None) -> Any:
            assert count == 5
            return torch.tensor([4, 3, 1, 2, 7]), None

    method = SoftPromptMethod.around(encoder, prompt)
    loss, right = method_step(method, vocabulary, images, labels, settings, Fixed(), torch.Generator().manual_seed(0))
    features = encoder(prompt, NAMES).detach()
    scale = encoder.clip.logit_scale
    expected, hits = [], []
    for image, label in zip(images, labels.tolist(), strict=True):
        namesakes = [row for row, name in enumerate(NAMES) if name == NAMES[label]] if reject == "name" else [label]
        others = [row for row in (4, 3, 1, 2, 7) if row not in namesakes]
        margin = math.log((len(NAMES) - len(namesakes)) / len(others))
        positive = scale * float(image @ features[label])
        negatives = [scale * float(image @ features[row]) + margin for row in others]
        expected.append(math.log(sum(math.exp(value - positive) for value in [positive, *negatives])))
        hits.append(all(positive > value for value in negatives))
    assert float(loss.detach()) == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert right.tolist() == hits


def test_all_classes_sampled_is_the_full_softmax(encoder: PromptedTextEncoder) -> None:
    vocabulary = Vocabulary(NAMES, ids=list(range(len(NAMES))))
    prompt = SoftPrompt.random(32, 3, std=0.5)
    images, labels = unit(4, 24), torch.tensor([0, 1, 2, 5])
    losses = []
    for count in (0, len(NAMES)):
        settings = LearningSettings(num_classes=count, correction="ln")
        method = SoftPromptMethod.around(encoder, prompt)
        loss, _ = method_step(method, vocabulary, images, labels, settings, UniformSampler(8), torch.Generator())
        losses.append((loss, torch.autograd.grad(loss, prompt.context)[0]))
    torch.testing.assert_close(losses[0][0], losses[1][0])
    torch.testing.assert_close(losses[0][1], losses[1][1], atol=1e-5, rtol=1e-4)


def test_groups_keep_the_views_of_an_image_together() -> None:
    """Views are the outer index: image i of 5 is at i, i + 5 and i + 10."""
    assert [group.tolist() for group in image_groups(15, 3, 2)] == [
        [0, 1, 5, 6, 10, 11],
        [2, 3, 7, 8, 12, 13],
        [4, 9, 14],
    ]
    assert [group.tolist() for group in image_groups(4, 2, 32)] == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "sampler"),
    [("coop", "uniform"), ("coop", "hard"), ("pomp", "uniform"), ("cocoop", "uniform"), ("maple", "uniform")],
)
def test_draws_per_group_are_the_mean_of_batches_with_a_draw_each(
    make_clip: Make, make_method: Make, batches_for: Make, vocabulary: Vocabulary, name: str, sampler: str
) -> None:
    """What processes of the published trainer compute, whose gradients are averaged."""
    method: Method = make_method(name, make_clip(torch.float64))
    one_view, labels = batches_for(method, 12).batch(torch.arange(12).numpy(), 0, torch.Generator())
    other_view, _ = batches_for(method, 12, seed=3).batch(torch.arange(12).numpy(), 0, torch.Generator())
    inputs, labels = torch.cat([one_view, other_view]), labels.repeat(2)
    draw = HardSampler(6) if sampler == "hard" else UniformSampler(6)
    if isinstance(draw, HardSampler):
        draw.update(method.class_features(vocabulary))
    settings = LearningSettings(num_classes=4, reject="id", draws="per_group", group=4)
    encoded: list[list[int]] = []
    plain = method.class_features

    def class_features(vocabulary: Any, rows: Any = None, *more: Any) -> Tensor:
        encoded.append(rows.tolist())
        return plain(vocabulary, rows, *more)

    method.class_features = class_features  # type: ignore[method-assign, assignment]

    def step(chosen: Tensor, generator: torch.Generator, **changes: Any) -> tuple[Tensor, Tensor]:
        changed = dataclasses.replace(settings, **changes)
        return method_step(method, vocabulary, inputs[chosen], labels[chosen], changed, draw, generator, views=2)

    learned = list(method.parameters())
    whole, right = step(torch.arange(24), torch.Generator().manual_seed(7))
    if not method.conditional:
        assert len(encoded) == 1
    assert all(len(set(rows)) == len(rows) for rows in encoded)
    generator = torch.Generator().manual_seed(7)
    losses, expected_right = [], torch.zeros(24, dtype=torch.bool)
    for members in (torch.tensor([*range(k, k + 4), *range(k + 12, k + 16)]) for k in (0, 4, 8)):
        loss, expected_right[members] = step(members, generator, draws="batch")
        losses.append(loss)
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(whole, expected, atol=1e-12, rtol=0)
    assert torch.equal(right, expected_right)
    ours, theirs = torch.autograd.grad(whole, learned), torch.autograd.grad(expected, learned)
    for gradient, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-11, rtol=1e-9)
    shared, _ = step(torch.arange(24), torch.Generator().manual_seed(7), draws="batch")
    assert abs(float((shared - whole).detach())) > 1e-6, "one draw for all is another loss"


def test_many_images_of_a_class_give_the_same_gradient_on_several_threads(
    clip: Clip, make_method: Make, batches_for: Make, vocabulary: Vocabulary
) -> None:
    method = make_method("linear_probe", clip)
    inputs, labels = batches_for(method).batch(torch.arange(4000).numpy() % 20, 0, torch.Generator())
    settings, learned = LearningSettings(num_classes=4), list(method.parameters())
    inputs = inputs + 0.1 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(2))
    threads, gradients = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for _ in range(10):
            generator = torch.Generator().manual_seed(1)
            loss, _ = method_step(method, vocabulary, inputs, labels, settings, UniformSampler(6), generator)
            gradients.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, learned)]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_groups_must_divide_the_batch() -> None:
    published = learning_settings(load_config(None, ["LOSS.DRAWS", "per_group", "OPTIM.BATCH", "256"]))
    assert (published.draws, published.group, published.batch) == ("per_group", 32, 256)
    assert learning_settings(load_config(None, ["OPTIM.BATCH", "100"])).draws == "batch"
    with pytest.raises(UserError, match=r"LOSS.GROUP is 32; expected a divisor of OPTIM.BATCH 100"):
        learning_settings(load_config(None, ["LOSS.DRAWS", "per_group", "OPTIM.BATCH", "100"]))
    with pytest.raises(UserError, match=r"LOSS.DRAWS is 'per_rank'; expected one of batch, per_group"):
        learning_settings(load_config(None, ["LOSS.DRAWS", "per_rank"]))


def test_one_draw_is_all_that_older_states_know() -> None:
    """Their runs can still be resumed; draws of groups are part of what a state must agree in."""
    clip = SimpleNamespace(fingerprint="f")
    method: Any = SimpleNamespace(clip=clip, reads="features", identity=dict)
    data: Any = SimpleNamespace(vocabulary=Vocabulary(NAMES), batches=range(8), stored_views=2)

    def decides(*overrides: str) -> dict[str, Any]:
        cfg = load_config(None, overrides)
        return what_decides(learning_settings(cfg), cfg, method, data)

    one = decides()
    assert not {"draws", "group"} & one.keys()
    assert decides("LOSS.DRAWS", "per_group", "LOSS.GROUP", "8") == one | {"draws": "per_group", "group": 8}
