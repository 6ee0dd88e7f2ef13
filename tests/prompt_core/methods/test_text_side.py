"""Class features of each method against plain restatements, in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core import PromptedTextEncoder, SoftPrompt, UserError
from prompt_core.clip import Clip
from prompt_core.losses import full_softmax_logits
from prompt_core.methods.cocoop import CoCoOp
from prompt_core.methods.lasp import LASP, lasp_templates
from prompt_core.methods.maple import MaPLe
from prompt_core.methods.soft_prompt import SoftPromptMethod, start_prompt
from prompt_core.methods.vpt import VPT
from prompt_core.vocabulary import Vocabulary

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def double(make_clip: Make) -> Clip:
    return make_clip(torch.float64)


def spoken(name: str) -> str:
    return name.replace("_", " ")


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def gradients(features: Tensor, method: Any) -> list[Tensor]:
    learned = [parameter for parameter in method.parameters() if parameter.requires_grad]
    weights = unit(*features.shape, seed=9)
    computed = torch.autograd.grad((features * weights).sum(), learned, allow_unused=True)
    return [gradient for gradient in computed if gradient is not None]


@pytest.mark.parametrize("rows", [None, [4, 1, 3]])
@pytest.mark.parametrize("name", ["coop", "pomp", "cocoop", "maple", "ivlp", "lasp"])
def test_the_fast_path_is_the_full_length_one(
    double: Clip, make_method: Make, vocabulary: Vocabulary, name: str, rows: list[int] | None
) -> None:
    method = make_method(name, double)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    chosen = None if rows is None else torch.tensor(rows)
    features = unit(3, 24) if method.conditional else None
    theirs = method.class_features(vocabulary, chosen, features, reference=True)
    expected = gradients(theirs, method)
    assert expected
    assert all(float(gradient.norm()) > 1e-4 for gradient in expected)
    for chunk in (None, 2):
        ours = method.class_features(vocabulary, chosen, features, chunk)
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
        for gradient, reference in zip(gradients(ours, method), expected, strict=True):
            torch.testing.assert_close(gradient, reference, atol=1e-11, rtol=1e-9)
    assert theirs.shape[-2:] == (6 if rows is None else 3, 24)
    torch.testing.assert_close(theirs.norm(dim=-1), torch.ones(theirs.shape[:-1], dtype=torch.float64))


def test_rows_are_those_of_all(double: Clip, make_method: Make, vocabulary: Vocabulary) -> None:
    for name in ("coop", "pomp", "cocoop", "maple", "ivlp", "vpt", "lasp", "linear_probe"):
        method = make_method(name, double)
        images = unit(2, 24)
        everything = method.class_features(vocabulary, None, images)
        part = method.class_features(vocabulary, torch.tensor([5, 0]), images)
        torch.testing.assert_close(part, everything[..., [5, 0], :], atol=1e-12, rtol=0)


def test_maple_written_out(double: Clip, vocabulary: Vocabulary) -> None:
    """The words stay in the text; positions 1 and 2 are replaced at each of the first blocks."""
    method = MaPLe(double, depth=2).double()
    with torch.no_grad():
        method.text_context.add_(unit(2, 32))
    model = double.model
    for row, name in enumerate(vocabulary.names):
        ids = double.tokenizer([f"a photo of a {spoken(name)}."])
        states = model.token_embedding(ids)
        states = (
            torch.cat([states[:, :1], method.text_context[None], states[:, 3:]], dim=1) + model.positional_embedding
        )
        for index, block in enumerate(model.transformer.resblocks):
            if index == 1:
                states = torch.cat([states[:, :1], method.deep_text_context[:1], states[:, 3:]], dim=1)
            states = block(states, attn_mask=model.attn_mask)
        end = model.ln_final(states)[0, ids.argmax()] @ model.text_projection
        ours = method.class_features(vocabulary)[row]
        torch.testing.assert_close(ours, F.normalize(end, dim=0), atol=1e-12, rtol=0)


def test_maple_starts_from_its_words_and_checks_them(double: Clip, vocabulary: Vocabulary) -> None:
    whole = MaPLe(double, depth=1).double()
    words = SoftPromptMethod(double, init="a photo of a").double()
    torch.testing.assert_close(whole.class_features(vocabulary), words.class_features(vocabulary), atol=1e-12, rtol=0)
    with pytest.raises(UserError, match=r"METHOD.MAPLE.N_CTX is 5; expected 1 to 4, the words of 'a photo of a'"):
        MaPLe(double, n_ctx=5)
    with pytest.raises(UserError, match="is 2 tokens"):
        MaPLe(double, words="a photograph of hare's")
    with pytest.raises(UserError, match=r"METHOD.MAPLE.N_CTX is 0; expected at least 1"):
        MaPLe(double, n_ctx=0, words="")
    without = MaPLe(double, n_ctx=5, words="", depth=1)
    assert (without.text_context.shape, without.fixed.shape) == ((5, 32), (0, 32))
    assert float(without.text_context.detach().std()) == pytest.approx(0.02, rel=0.2)


def test_maples_deeper_layers_start_from_the_same_values(double: Clip) -> None:
    """As published: copies of one layer; the first has values of its own."""
    first, second, third = MaPLe(double, depth=3).to_vision
    assert torch.equal(second.weight, third.weight)
    assert torch.equal(second.bias, third.bias)
    assert not torch.equal(first.weight, second.weight)
    assert second.weight.data_ptr() != third.weight.data_ptr()


def test_cocoop_encodes_each_images_own_context(double: Clip, vocabulary: Vocabulary) -> None:
    method = CoCoOp(double, reduction=4).double()
    images = unit(3, 24)
    first, _, second = method.meta_net
    encoder = PromptedTextEncoder(double)
    features = method.class_features(vocabulary, None, images)
    for image, ours in zip(images, features, strict=True):
        shift = F.relu(image @ first.weight.T + first.bias) @ second.weight.T + second.bias
        expected = encoder(SoftPrompt(method.text_context + shift), vocabulary, reference=True)
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    logits = method.logits(images, vocabulary)
    expected = double.logit_scale * torch.stack(
        [class_matrix @ image for class_matrix, image in zip(features, images, strict=True)]
    )
    torch.testing.assert_close(logits, expected, atol=1e-9, rtol=0)
    with pytest.raises(UserError, match="class features of method cocoop depend on the image"):
        method.class_features(vocabulary)
    with pytest.raises(UserError, match=r"METHOD.COCOOP.REDUCTION is 25; expected 1 to 24"):
        CoCoOp(double, reduction=25)


def test_vpt_keeps_the_hand_written_text(double: Clip, vocabulary: Vocabulary) -> None:
    method = VPT(double, template="art of the {}.")
    texts = [f"art of the {spoken(name)}." for name in vocabulary.names]
    expected = double.model.encode_text(double.tokenizer(texts), normalize=True)
    torch.testing.assert_close(method.class_features(vocabulary), expected, atol=1e-12, rtol=0)
    assert not method.class_features(vocabulary).requires_grad


def test_lasp_adds_its_shift_before_the_norm(double: Clip, vocabulary: Vocabulary) -> None:
    method = LASP(double, templates=2).double()
    texts = [f"a photo of a {spoken(name)}." for name in vocabulary.names]
    raw = double.model.encode_text(double.tokenizer(texts))
    assert float((raw.norm(dim=-1) - 1).abs().min()) > 1e-2, "the norm matters"
    torch.testing.assert_close(method.class_features(vocabulary), F.normalize(raw, dim=-1), atol=1e-12, rtol=0)
    with torch.no_grad():
        method.shift.copy_(unit(24))
    expected = F.normalize(raw + unit(24), dim=-1)
    torch.testing.assert_close(method.class_features(vocabulary), expected, atol=1e-12, rtol=0)


def test_lasp_text_loss_written_out(double: Clip, vocabulary: Vocabulary) -> None:
    method = LASP(double, templates=3, noise_probability=0.0, text_weight=2.5).double()
    classes = unit(4, 24, seed=1).requires_grad_()
    rows = torch.tensor([0, 3, 4, 5])  # two cranes among them
    loss = method.regulariser(vocabulary, rows, classes, torch.Generator())
    total, count = torch.zeros((), dtype=torch.float64), 0
    for template in method.targets.templates:
        texts = [template.replace("{}", spoken(vocabulary.names[row])) for row in rows.tolist()]
        hand = double.model.encode_text(double.tokenizer(texts), normalize=True)
        for target in range(4):
            # A namesake is no wrong answer.
            others = [j for j in range(4) if j == target or vocabulary.names[rows[j]] != vocabulary.names[rows[target]]]
            scores = double.logit_scale * (classes[others] @ hand[target])
            total, count = total - scores.log_softmax(dim=0)[others.index(target)], count + 1
    torch.testing.assert_close(loss, 2.5 * total / count, atol=1e-9, rtol=1e-9)
    assert LASP(double, text_weight=0.0).regulariser(vocabulary, rows, classes, torch.Generator()) is None


def test_lasp_reads_its_own_templates(double: Clip) -> None:
    own = LASP(double).targets.templates
    assert (len(own), len(set(own))) == (35, 34)
    assert own[:2] == ["a photo of a {}, a type of flower.", "a photo of a person doing {}."]
    assert own[4:6] == ["{} texture.", "itap of a {}."]
    assert own[-3:] == ["itap of the {}.", "a jpeg corrupted photo of the {}.", "a good photo of a {}."]
    assert own.count("a bad photo of the {}.") == 2
    assert len(set(lasp_templates())) == 85


def test_lasp_noise_is_added_to_unit_norm_features_and_stays(double: Clip, vocabulary: Vocabulary) -> None:
    method = LASP(double, templates=2, noise=0.5, noise_probability=1.0, text_weight=1.0).double()
    classes = unit(6, 24, seed=1)
    loss = method.regulariser(vocabulary, None, classes, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    torch.rand((), generator=generator)
    hand = method.targets(method.encoder, vocabulary)
    noisy = (hand + 0.5 * torch.randn(hand.shape, generator=generator)).flatten(0, 1)
    labels = torch.arange(6).repeat(2)
    groups = torch.from_numpy(vocabulary.name_groups)
    expected = F.cross_entropy(full_softmax_logits(noisy, classes, labels, double.logit_scale, groups), labels)
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=1e-9)


def test_lasp_noise_comes_in_its_share_of_the_steps(double: Clip, vocabulary: Vocabulary) -> None:
    method = LASP(double, templates=1, noise=0.3).double()
    classes = unit(6, 24, seed=1)

    def loss(seed: int) -> float:
        return float(method.regulariser(vocabulary, None, classes, torch.Generator().manual_seed(seed)))

    method.options = dataclasses.replace(method.options, noise_probability=0.0)
    plain = loss(0)
    method.options = dataclasses.replace(method.options, noise_probability=0.5)
    losses = [loss(seed) for seed in range(40)]
    assert losses == [loss(seed) for seed in range(40)]
    assert 8 < sum(value == plain for value in losses) < 32
    assert len(set(losses)) > 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": 0}, "METHOD.LASP.TEMPLATES is 0; expected 1 to 86"),
        ({"noise_probability": 1.5}, "NOISE_PROBABILITY of 0 to 1"),
        ({"noise": -1.0}, "no negative NOISE"),
    ],
)
def test_lasp_settings_out_of_range(double: Clip, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LASP(double, **options)


def test_lasp_norms_learn_at_their_own_rate(double: Clip) -> None:
    groups = LASP(double, norm_rate=0.25).parameter_groups()
    assert [group.get("lr_scale", 1.0) for group in groups] == [1.0, 0.25]


def test_class_specific_contexts_are_bound_to_their_classes(double: Clip, vocabulary: Vocabulary) -> None:
    method = SoftPromptMethod(double, names=vocabulary.names).double()
    assert method.class_features(vocabulary).shape == (6, 24)
    with pytest.raises(
        UserError, match="a context for each of the 6 classes it was learned on; these 6 are not the same"
    ):
        method.class_features(list(reversed(vocabulary.names)))
    with pytest.raises(UserError, match=r"PROMPT\.INIT goes with a shared context"):
        SoftPromptMethod(double, init="a photo", names=vocabulary.names)


def test_a_context_has_to_leave_room_for_the_name(double: Clip) -> None:
    assert start_prompt(double, 73).context.shape[-2] == 73
    for count in (0, 74, 100):
        with pytest.raises(UserError, match=rf"PROMPT.N_CTX is {count}; expected 1 to 73: .* takes 77 tokens"):
            start_prompt(double, count)
