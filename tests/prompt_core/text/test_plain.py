"""Hand-written templates on text towers of every kind, against open_clip's own encoding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from prompt_core import PromptedTextEncoder, SoftPrompt, TextClassifier, UserError
from prompt_core.clip import Clip
from prompt_core.text.tower import learned_context_obstacle

from ...support.towers import KINDS, PREPROCESS, WordTokenizer, one_tokenizer, shared_clip, shrunk_clip

NAMES = ["cat", "red_fox", "cap (headwear)", "cat", "hare's-foot bristle fern"]
TEMPLATES = ["a photo of a {}.", "itap of the {}"]

pytestmark = pytest.mark.filterwarnings("ignore:.*encoded at full length")


@pytest.fixture(autouse=True, scope="module")
def _one_tokenizer() -> Iterator[None]:
    with one_tokenizer():
        yield


@pytest.mark.parametrize("architecture", KINDS)
def test_templates_are_open_clips_own_features_averaged(architecture: str) -> None:
    clip = shared_clip(architecture)
    expected = torch.zeros(len(NAMES), 24)
    for template in TEMPLATES:
        ids = clip.tokenizer([template.format(name.replace("_", " ")) for name in NAMES])
        with torch.no_grad():
            expected += F.normalize(clip.model.encode_text(ids), dim=1)  # type: ignore[operator]
    classifier = TextClassifier.build(clip, NAMES, TEMPLATES)
    torch.testing.assert_close(classifier.weight, F.normalize(expected, dim=1), atol=2e-6, rtol=0)
    cosines = classifier.weight @ classifier.weight.T
    assert float(cosines[0, 3]) == pytest.approx(1, abs=1e-6)
    assert float(cosines[0, [1, 2, 4]].max()) < 0.999, "the names make no difference"


@pytest.mark.parametrize("architecture", KINDS)
def test_learned_contexts_work_or_are_refused_with_the_reason(architecture: str) -> None:
    clip = shared_clip(architecture)
    encoder = PromptedTextEncoder(clip)
    if isinstance(clip.tokenizer, WordTokenizer):
        assert encoder.texts_only
        for call in (
            lambda: encoder(SoftPrompt.random(32, 2), NAMES),
            lambda: encoder.tower,
            lambda: SoftPrompt.from_words(clip, "a photo"),
            lambda: TextClassifier.build(clip, NAMES, SoftPrompt.random(32, 2)),
        ):
            with pytest.raises(UserError) as caught:
                call()
            assert str(caught.value) == (
                f"{architecture} takes hand-written templates only, its tokenizer is not CLIP's byte-pair encoding; "
                "give templates such as 'a photo of a {}.', or use an architecture that takes learned prompts "
                "(python -m prompt_core.doctor --towers lists them)"
            )
    else:
        prompt = SoftPrompt.from_words(clip, "a photo of the")
        with torch.no_grad():
            ids = clip.tokenizer([f"a photo of the {name.replace('_', ' ')}." for name in NAMES])
            theirs = F.normalize(clip.model.encode_text(ids), dim=1)  # type: ignore[operator]
            torch.testing.assert_close(encoder(prompt, NAMES), theirs, atol=2e-6, rtol=0)


class TextModel(torch.nn.Module):
    """Stands for a Hugging Face text model: mean pooling over tokens that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.output_dim = 24
        self.transformer = torch.nn.EmbeddingBag(500, 24, padding_idx=0, mode="mean")

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.transformer(ids)


@pytest.fixture
def text_model_clip() -> Clip:
    clip = shrunk_clip("ViT-B-16-SigLIP")
    clip.model.text = TextModel()
    clip.tokenizer = WordTokenizer(12, 500)
    return clip


def test_towers_that_are_not_open_clips(text_model_clip: Clip) -> None:
    assert text_model_clip.embed_dim == 24
    obstacle = learned_context_obstacle(text_model_clip)
    assert obstacle is not None
    assert "only, its text tower TextModel is not open_clip's own text transformer; give templates" in obstacle
    encoder = PromptedTextEncoder(text_model_clip)
    texts = ["a red fox", "a cat", "a red fox", "the fern"]
    with torch.no_grad():
        theirs = text_model_clip.model.encode_text(text_model_clip.tokenizer(texts))  # type: ignore[operator]
    for chunk_size in (None, 1, 2):
        ours = encoder.encode_texts(texts, chunk_size)
        torch.testing.assert_close(ours, F.normalize(theirs, dim=1))
        assert not ours.requires_grad
    raw = PromptedTextEncoder(text_model_clip, normalise=False)
    torch.testing.assert_close(raw.encode_texts(texts), theirs)
    assert encoder.encode_texts([]).shape == (0, 24)


@pytest.mark.parametrize("padding", [0, 1])
def test_texts_that_a_tokenizer_would_cut_are_refused(text_model_clip: Clip, padding: int) -> None:
    text_model_clip.tokenizer = WordTokenizer(12, 500, padding)
    encoder = PromptedTextEncoder(text_model_clip)
    eleven = " ".join(["cat"] * 11)  # and the end token
    assert encoder.encode_texts(["dog", eleven]).shape == (2, 24)
    with pytest.raises(UserError, match=r"text 'cat cat.* cat' needs more than the 12 tokens .*; shorten the name"):
        encoder.encode_texts(["dog", eleven + " cat"])


def test_the_tokenizer_is_opened_only_when_it_is_needed() -> None:
    opened: list[int] = []

    def open_it() -> WordTokenizer:
        opened.append(1)
        return WordTokenizer(64, 500)

    model = shrunk_clip("ViT-B-16-SigLIP").model
    clip = Clip(model, "siglip", None, PREPROCESS, None, open_it)
    encoder = PromptedTextEncoder(clip)
    with pytest.raises(UserError, match="takes hand-written templates only"):
        encoder(SoftPrompt.random(32, 2), NAMES)
    assert not opened
    encoder.encode_texts(["a cat"])
    encoder.encode_texts(["a dog"])
    assert opened == [1]


def test_siglips_bias_does_not_change_scores() -> None:
    clip = shrunk_clip("ViT-B-16-SigLIP")
    model = clip.model
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = ["a cat.", "a red fox."]
    with torch.no_grad():
        theirs, _ = model.get_logits(pixels, clip.tokenizer(texts))  # type: ignore[operator]
        assert float(model.logit_bias) == -10  # type: ignore[arg-type]
    classifier = TextClassifier.build(clip, ["cat", "red fox"], "a {}.")
    ours = classifier.logits(clip.encode_image(pixels), clip.logit_scale)
    torch.testing.assert_close(theirs - ours, torch.full((3, 2), -10.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.softmax(dim=1), theirs.softmax(dim=1), atol=1e-5, rtol=0)
