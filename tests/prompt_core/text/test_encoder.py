"""The fast encoder is the 77-token one: over architectures, layouts, dtypes and name lists."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from prompt_core import PromptedTextEncoder, SoftPrompt, UserError
from prompt_core.clip import Clip

NAMES = [
    "cat",
    "cap_(headwear)",
    "hare's-foot bristle fern",
    "dog",
    "cat",
    "superconducting supercollider",
    "St._Bernard",
]
PREPROCESS = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
TINY_VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}


def text_side(architecture: str, layers: int | None = None, dtype: torch.dtype = torch.float32) -> Clip:
    """An architecture's full text tower with an image tower that costs nothing."""
    config = copy.deepcopy(open_clip.get_model_config(architecture))
    if layers is not None:
        config["text_cfg"]["layers"] = layers
    coca = "multimodal_cfg" in config
    config["vision_cfg"] = TINY_VISION | ({"output_tokens": True} if coca else {})
    custom = config.pop("custom_text", False)
    builder = open_clip.CoCa if coca else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    torch.manual_seed(1)
    model = builder(**config).to(dtype)
    tokenizer = open_clip.SimpleTokenizer(context_length=config["text_cfg"].get("context_length", 77))
    return Clip(model, architecture, None, PREPROCESS, tokenizer)


def packed(encoder: PromptedTextEncoder, prompt: SoftPrompt, names: list[str]) -> torch.Tensor:
    """The shared-prefix path, whatever the size would have chosen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prompt_core.text.encoder.PACKED_MINIMUM_WORK", 0.0)
        return encoder(prompt, names)


def gradient(features: torch.Tensor, prompt: SoftPrompt) -> torch.Tensor:
    """Gradient of a fixed random projection of the features."""
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(3)).to(features.dtype)
    return torch.autograd.grad((features * weights).sum(), prompt.context)[0]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).double().norm() / theirs.double().norm())


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("ViT-B-32-quickgelu", None),
        ("ViT-B-16-quickgelu", None),
        ("ViT-B-16", None),
        pytest.param("ViT-L-14", None, marks=pytest.mark.slow),
        ("RN50-quickgelu", None),
        ("ViT-H-14", 3),
        ("convnext_base", None),
    ],
)
def test_equals_open_clip_on_the_assembled_prompt(architecture: str, layers: int | None) -> None:
    encoder = PromptedTextEncoder(text_side(architecture, layers))
    assert encoder.tower.sharing_obstacle is None
    names = NAMES[:4]
    prompt = SoftPrompt.random(encoder.tower.width, 4, seed=5)
    theirs = encoder(prompt, names, reference=True)
    ours = packed(encoder, prompt, names)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    expected = gradient(theirs, prompt)
    assert relative(gradient(ours, prompt), expected) < 1e-4


def test_reference_is_open_clips_own_output_on_plain_words(tiny_clip: Clip) -> None:
    encoder = PromptedTextEncoder(tiny_clip)
    prompt = SoftPrompt.from_words(tiny_clip, "a photo of a")
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    with torch.no_grad():
        theirs = tiny_clip.model.encode_text(tiny_clip.tokenizer(texts), normalize=True)
    for ours in (
        encoder(prompt, NAMES, reference=True),
        encoder(prompt, NAMES),
        packed(encoder, prompt, NAMES),
        encoder.encode_texts(texts),
    ):
        torch.testing.assert_close(ours.detach(), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("custom_text", [False, True])
def test_float64_equality(
    make_tiny_clip: Callable[..., Any], position: str, class_specific: bool, custom_text: bool
) -> None:
    encoder = PromptedTextEncoder(make_tiny_clip(dtype=torch.float64, custom_text=custom_text))
    prompt = SoftPrompt.random(32, 5, position, len(NAMES) if class_specific else None, std=0.5).double()
    theirs = encoder(prompt, NAMES, reference=True)
    expected = gradient(theirs, prompt)
    assert float(expected.norm()) > 1e-3
    for ours in (
        packed(encoder, prompt, NAMES),
        encoder(prompt, NAMES),
        encoder(prompt, NAMES, chunk_size=2),
        encoder(prompt, NAMES, chunk_size=3, reference=True),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
        torch.testing.assert_close(gradient(ours, prompt), expected, atol=1e-12, rtol=1e-11)


# Nothing, some and all chunks are kept.
@pytest.mark.parametrize("kept_bytes", [0, 30_000, 10**9])
@pytest.mark.parametrize("text_cfg", [{}, {"quick_gelu": False, "ls_init_value": 0.7}])
@pytest.mark.parametrize("class_specific", [False, True])
def test_chunked_packed_gradient_is_exact(
    make_tiny_clip: Callable[..., Any],
    kept_bytes: int,
    text_cfg: dict[str, Any],
    class_specific: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prompt_core.text.encoder.PACKED_MINIMUM_WORK", 0)
    encoder = PromptedTextEncoder(make_tiny_clip(dtype=torch.float64, **text_cfg), kept_bytes=kept_bytes)
    generator = torch.Generator().manual_seed(2)
    context, deep = (torch.randn(*shape, 32, generator=generator, dtype=torch.float64) for shape in ((5,), (2, 2)))
    contexts = torch.stack([context + row for row in range(len(NAMES))])
    prompt = SoftPrompt(contexts) if class_specific else SoftPrompt(context, deep_context=deep)
    whole, chunked = encoder(prompt, NAMES), encoder(prompt, NAMES, chunk_size=2)
    torch.testing.assert_close(chunked, whole, atol=1e-12, rtol=0)
    weights = torch.randn(whole.shape, generator=generator, dtype=torch.float64)
    parameters = list(prompt.parameters())
    gradients, expected = (torch.autograd.grad((features * weights).sum(), parameters) for features in (chunked, whole))
    for gradient, target in zip(gradients, expected, strict=True):
        assert float(target.norm()) > 1e-3
        torch.testing.assert_close(gradient, target, atol=1e-12, rtol=1e-11)


class _Products(TorchDispatchMode):
    """The shapes of products of matrices, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.addmm, torch.ops.mkldnn._linear_pointwise):
            self.shapes.append(tuple(result.shape))
        return result


def test_kept_inputs_spare_a_product_a_block(
    make_tiny_clip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prompt_core.text.encoder.PACKED_MINIMUM_WORK", 0)
    clip = make_tiny_clip()
    prompt = SoftPrompt.random(32, 5)

    def products(kept_bytes: int) -> int:
        encoder = PromptedTextEncoder(clip, kept_bytes=kept_bytes)
        with _Products() as counter:
            gradient(encoder(prompt, NAMES, chunk_size=2), prompt)
        return len(counter.shapes)

    # Three blocks; the three chunks keep 12, 17 and 22 tokens and 2 names each, of 32 x 4 bytes a block.
    none = products(0)
    assert none - products(15_000) == 3 * 2
    assert none - products(10**9) == 3 * 3


def test_graphs_do_not_share_memory(make_tiny_clip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes use memory again, but never that of a graph that someone still has."""
    monkeypatch.setattr("prompt_core.text.encoder.PACKED_MINIMUM_WORK", 0)
    encoder = PromptedTextEncoder(make_tiny_clip(dtype=torch.float64))
    first, second = (SoftPrompt.random(32, 5, std=0.5, seed=seed).double() for seed in (0, 1))
    expected = [gradient(encoder(prompt, NAMES), prompt) for prompt in (first, second)]
    features = [encoder(prompt, NAMES) for prompt in (first, second)]
    with torch.no_grad():
        encoder(first, ["something", "else"])
    assert torch.equal(gradient(features[1], second), expected[1])
    weights = torch.ones_like(features[0])
    once, again = (torch.autograd.grad(features[0], first.context, weights, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(gradient(features[0], first), expected[0])


def test_a_tower_in_place_of_another_is_read_anew(make_tiny_clip: Callable[..., Any]) -> None:
    """Nothing of the weights is remembered that loading others would leave stale."""
    clip, other = make_tiny_clip(), make_tiny_clip(seed=5)
    clip.precision = other.precision = "bfloat16"
    encoder, prompt = PromptedTextEncoder(clip), SoftPrompt.random(32, 5)
    before = packed(encoder, prompt, NAMES)
    clip.model.load_state_dict(other.model.state_dict())
    after = packed(encoder, prompt, NAMES)
    assert not torch.equal(before, after)
    assert torch.equal(after, packed(PromptedTextEncoder(other), prompt, NAMES))


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_empty_chunks_are_refused(tiny_clip: Clip, chunk_size: int) -> None:
    with pytest.raises(UserError, match=f"chunk_size is {chunk_size}; give a positive number"):
        PromptedTextEncoder(tiny_clip)(SoftPrompt.random(32, 3), NAMES, chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_deep_context(
    make_tiny_clip: Callable[..., Any], chunk_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = PromptedTextEncoder(make_tiny_clip(dtype=torch.float64))
    generator = torch.Generator().manual_seed(2)
    deep = torch.randn(2, 2, 32, generator=generator, dtype=torch.float64)
    context = torch.randn(4, 32, generator=generator, dtype=torch.float64)
    prompt = SoftPrompt(context, deep_context=deep)
    plain = encoder(SoftPrompt(context), NAMES)
    theirs = encoder(prompt, NAMES, reference=True)
    assert float((theirs - plain).detach().abs().max()) > 1e-3, "the deep context changes nothing"
    weights = torch.randn(theirs.shape, generator=generator, dtype=torch.float64)
    parameters = [prompt.context, prompt.deep_context]
    expected = torch.autograd.grad((theirs * weights).sum(), parameters)
    for work in (0, float("inf")):  # packed, truncated
        monkeypatch.setattr("prompt_core.text.encoder.PACKED_MINIMUM_WORK", work)
        ours = encoder(prompt, NAMES, chunk_size=chunk_size)
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
        gradients = torch.autograd.grad((ours * weights).sum(), parameters)
        for gradient, target in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient, target, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_conditional_contexts(make_tiny_clip: Callable[..., Any], position: str, chunk_size: int | None) -> None:
    encoder = PromptedTextEncoder(make_tiny_clip(dtype=torch.float64))
    contexts = torch.randn(3, 4, 32, dtype=torch.float64, requires_grad=True)
    ours = encoder.encode_conditional(contexts, NAMES, position, chunk_size=chunk_size)
    theirs = encoder.encode_conditional(contexts, NAMES, position, reference=True)
    assert ours.shape == (3, len(NAMES), 24)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    one_by_one = torch.stack([encoder(SoftPrompt(context, position), NAMES) for context in contexts])
    torch.testing.assert_close(ours, one_by_one, atol=1e-12, rtol=0)
    weights = torch.randn_like(theirs)
    gradient, expected = (torch.autograd.grad((features * weights).sum(), contexts)[0] for features in (ours, theirs))
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-11)


@pytest.mark.slow
def test_bfloat16_within_two_hundredths() -> None:
    """bfloat16 keeps 8 bits; over 12 blocks the two orders of summing differ by less than 0.02 per unit-norm entry."""
    clip = text_side("ViT-B-32-quickgelu", dtype=torch.bfloat16)
    encoder = PromptedTextEncoder(clip)
    prompt = SoftPrompt.random(512, 4)
    with torch.no_grad():
        exact = PromptedTextEncoder(text_side("ViT-B-32-quickgelu"))(prompt, NAMES, reference=True)
        theirs = encoder(prompt, NAMES, reference=True)
        ours = packed(encoder, prompt, NAMES)
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)
    # No worse against the float32 truth than open_clip's own bfloat16 run.
    assert float((ours - exact).abs().max()) < 2 * float((theirs - exact).abs().max())


@pytest.mark.parametrize("work", [0, float("inf")])  # packed, truncated
def test_products_in_bfloat16_agree_with_float32(
    make_tiny_clip: Callable[..., Any], work: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt, its gradient and the features stay float32, and so do states, norms and sums between products."""
    monkeypatch.setattr("prompt_core.text.encoder.PACKED_MINIMUM_WORK", work)
    clip, prompt = make_tiny_clip(), SoftPrompt.random(32, 5)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    results = []
    for precision in ("float32", "bfloat16"):
        clip.precision = precision
        features = PromptedTextEncoder(clip)(prompt, NAMES)
        results.append((features, gradient(features, prompt), clip.encode_image(images)))
        assert {result.dtype for result in results[-1]} == {torch.float32}
    exact, rounded = results
    assert not torch.equal(exact[0], rounded[0])
    assert not torch.equal(exact[2], rounded[2])
    # The tiny model's large weights multiply what rounding does to its gradient by ten.
    for one, other, most in zip(exact, rounded, (0.03, 0.25, 0.03), strict=True):
        assert relative(other.detach(), one.detach()) < most
        assert torch.cosine_similarity(one.detach().flatten(), other.detach().flatten(), dim=0) > 1 - most**2


@pytest.mark.parametrize(
    ("text_cfg", "custom", "reason"),
    [
        ({"no_causal_mask": True}, True, "not causal"),
        ({"pool_type": "last"}, False, "pools by 'last'"),
        ({"embed_cls": True, "context_length": 76}, True, "class token"),
    ],
)
def test_other_towers_take_the_slower_path_and_say_so(
    make_tiny_clip: Callable[..., Any], text_cfg: dict[str, Any], custom: bool, reason: str
) -> None:
    clip = make_tiny_clip(custom_text=custom, dtype=torch.float64, **text_cfg)
    with pytest.warns(UserWarning, match=reason):
        encoder = PromptedTextEncoder(clip)
    prompt = SoftPrompt.from_words(clip, "a photo of a").double()
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    with torch.no_grad():
        theirs = clip.model.encode_text(clip.tokenizer(texts), normalize=True)
    ours = encoder(prompt, NAMES, chunk_size=2)
    torch.testing.assert_close(ours.detach(), theirs, atol=1e-12, rtol=0)
    assert float(gradient(ours, prompt).norm()) > 0


def test_coca_matches_open_clip() -> None:
    clip = text_side("coca_ViT-B-32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = PromptedTextEncoder(clip)
    assert encoder.tower.is_causal
    prompt = SoftPrompt.from_words(clip, "a photo of a")
    with torch.no_grad():
        theirs = clip.model.encode_text(clip.tokenizer([f"a photo of a {name}." for name in ("cat", "red fox")]))
        ours = encoder(prompt, ["cat", "red fox"])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_custom_blocks_are_truncated_exactly(make_tiny_clip: Callable[..., Any]) -> None:
    encoder = PromptedTextEncoder(make_tiny_clip(custom_text=True, dtype=torch.float64, qk_norm=True))
    assert encoder.slow_because is None
    assert "CustomResidualAttentionBlock" in str(encoder.tower.sharing_obstacle)
    prompt = SoftPrompt.random(32, 4).double()
    theirs = encoder(prompt, NAMES, reference=True)
    torch.testing.assert_close(encoder(prompt, NAMES), theirs, atol=1e-12, rtol=0)


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(words, min_size=1, max_size=6), n_ctx=st.integers(0, 6), data=st.data())
def test_any_name_list(tiny_clip: Clip, names: list[str], n_ctx: int, data: st.DataObject) -> None:
    encoder = PromptedTextEncoder(tiny_clip)
    prompt = SoftPrompt.random(32, n_ctx, data.draw(st.sampled_from(["end", "middle", "front"])), std=0.5)
    with torch.no_grad():
        try:
            theirs = encoder(prompt, names, reference=True)
        except UserError as error:
            if "tokenised" not in str(error):
                raise
            return
        torch.testing.assert_close(encoder(prompt, names), theirs, atol=1e-5, rtol=0)
        torch.testing.assert_close(packed(encoder, prompt, names), theirs, atol=1e-5, rtol=0)
        order = data.draw(st.permutations(range(len(names))))
        torch.testing.assert_close(
            encoder(prompt, [names[row] for row in order]), theirs[list(order)], atol=1e-5, rtol=0
        )


def test_duplicates_blanks_and_single_names(tiny_clip: Clip) -> None:
    encoder = PromptedTextEncoder(tiny_clip)
    prompt = SoftPrompt.random(32, 3)
    with torch.no_grad():
        features = encoder(prompt, ["", "cat", "", "cat"])
        assert torch.equal(features[0], features[2])
        assert torch.equal(features[1], features[3])
        assert not torch.allclose(features[0], features[1])
        torch.testing.assert_close(encoder(prompt, ["cat"])[0], features[1], atol=1e-6, rtol=0)
        assert encoder(prompt, []).shape == (0, 24)


def test_names_up_to_the_context_length(tiny_clip: Clip) -> None:
    encoder = PromptedTextEncoder(tiny_clip)
    sixty = " ".join(["cat"] * 60)
    with torch.no_grad():
        prompt = SoftPrompt.random(32, 14)
        theirs = encoder(prompt, [sixty, "dog"], reference=True)  # 1 + 14 + 60 + 1 + 1 = 77
        torch.testing.assert_close(packed(encoder, prompt, [sixty, "dog"]), theirs, atol=1e-5, rtol=0)
        with pytest.raises(UserError, match=r"'cat cat.*needs 78 tokens with 15 context vectors.*takes 77"):
            encoder(SoftPrompt.random(32, 15), [sixty, "dog"])


def test_a_name_that_spells_the_end_token_ends_there(tiny_clip: Clip) -> None:
    encoder = PromptedTextEncoder(tiny_clip)
    prompt = SoftPrompt.random(32, 3)
    names = ["cat <end_of_text> dog", "cat"]
    with torch.no_grad():
        theirs = encoder(prompt, names, reference=True)
        torch.testing.assert_close(packed(encoder, prompt, names), theirs, atol=1e-6, rtol=0)


def test_wrong_width_and_class_count_are_refused(tiny_clip: Clip) -> None:
    encoder = PromptedTextEncoder(tiny_clip)
    with pytest.raises(UserError, match="width 64, the text tower of tiny has 32"):
        encoder(SoftPrompt.random(64, 3), NAMES)
    with pytest.raises(UserError, match="holds 2 classes, the vocabulary 7"):
        encoder(SoftPrompt.random(32, 3, num_classes=2), NAMES)
    with pytest.raises(UserError, match="single text"):
        encoder(SoftPrompt.random(32, 3), "cat")


def test_no_work_is_done_on_padding(tiny_clip: Clip) -> None:
    encoder = PromptedTextEncoder(tiny_clip)
    prompt = SoftPrompt.random(32, 16)
    names = ["cat", "dog", "hare's-foot bristle fern"]
    with torch.no_grad(), _Products() as counter:
        packed(encoder, prompt, names)
    suffix = int((encoder.tokenizer.prompts(names, 16).lengths - 17).sum())
    hidden = [rows for rows, columns in counter.shapes if columns == 128]
    # Two full blocks see suffix and prefix, the last one only the three end-of-text tokens.
    assert hidden == [17 + suffix, 17 + suffix, 3]
