"""Own shares: the streaming sum is the plain softmax, whatever the sizes; answers say "none of these"."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prompt_core import TextClassifier, UserError
from prompt_core.background.background import Background
from prompt_core.background.kinds import Kinds
from prompt_core.background.own_share import background_total, own_shares, own_shares_reference
from prompt_core.background.photo_words import PhotoNamer, photo_words
from prompt_core.clip import Clip


def unit(rows: int, seed: int, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


@given(
    st.integers(0, 5),
    st.integers(1, 7),
    st.integers(0, 40),
    st.integers(1, 50),
    st.floats(0.1, 300),
    st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_blocks_give_the_plain_softmax(
    photos: int, words: int, others: int, block: int, scale: float, seed: int
) -> None:
    features, weight, background = unit(photos, seed), unit(words, seed + 1), unit(others, seed + 2)
    shares = own_shares(features, weight, background, scale, block)
    expected = own_shares_reference(features, weight, background, scale)
    torch.testing.assert_close(shares, expected, rtol=1e-11, atol=1e-13)
    assert shares.shape == (photos, words)


@given(
    st.integers(0, 4), st.integers(1, 5), st.integers(0, 9), st.integers(1, 12), st.floats(0.1, 300), st.integers(0, 99)
)
@settings(max_examples=30, deadline=None)
def test_kinds_add_to_their_words(photos: int, words: int, others: int, count: int, scale: float, seed: int) -> None:
    features, weight, background = unit(photos, seed), unit(words, seed + 1), unit(others, seed + 2)
    owner = torch.randint(words, (count,), generator=torch.Generator().manual_seed(seed))
    kinds = Kinds(unit(count, seed + 3), [f"kind {number}" for number in range(count)], owner)
    shares = own_shares(features, weight, background, scale, kinds=kinds)
    expected = own_shares_reference(features, weight, background, scale, kinds)
    torch.testing.assert_close(shares, expected, rtol=1e-9, atol=1e-13)
    assert (shares.sum(dim=1) <= 1 + 1e-9).all()


def test_without_a_background_it_is_the_softmax_over_the_words() -> None:
    features, weight = unit(4, 0), unit(3, 1)
    shares = own_shares(features, weight, weight[:0], 20.0)
    torch.testing.assert_close(shares, (20 * features @ weight.T).softmax(dim=1))
    assert torch.isneginf(background_total(features, weight[:0], 20.0)).all()


def test_a_huge_scale_overflows_nowhere() -> None:
    shares = own_shares(unit(4, 0).float(), unit(3, 1).float(), unit(9, 2).float(), 1e5, 2)
    assert torch.isfinite(shares).all()
    assert (shares.sum(dim=1) <= 1 + 1e-6).all()


def test_no_block_is_wider_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    plain = torch.Tensor.logsumexp

    def seen(tensor: torch.Tensor, dim: int) -> torch.Tensor:
        widths.append(tensor.shape[1])
        return plain(tensor, dim)

    monkeypatch.setattr(torch.Tensor, "logsumexp", seen)
    own_shares(unit(2, 0), unit(3, 1), unit(100, 2), 10.0, 16)
    assert max(widths) == 16


def test_an_answer_is_the_best_word_or_none() -> None:
    shares = torch.tensor([[0.2, 0.7], [0.4, 0.1], [0.5, 0.5]])
    sure, unsure, equal = photo_words(shares, ["cat", "dog"])
    assert (sure.word, sure.share, sure.none) == ("dog", pytest.approx(0.7), pytest.approx(0.1))
    assert [word for word, _ in sure.best] == ["dog", "cat"]
    assert (unsure.word, unsure.share, unsure.none) == (None, pytest.approx(0.4), pytest.approx(0.5))
    assert equal.word is None  # more than all others together is asked for
    assert photo_words(shares, ["cat", "dog"], threshold=0.3, best=1)[1].best == (("cat", pytest.approx(0.4)),)
    assert photo_words(shares, ["cat", "dog"], threshold=0.3)[1].word == "cat"


def test_photos_are_named_by_their_own_share(tiny_clip: Clip) -> None:
    photos = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    features = tiny_clip.encode_image(torch.stack([tiny_clip.preprocess(photo) for photo in photos]))
    words = TextClassifier(features, ["red", "blue"], background=Background(-features, ["a", "b"], 1e4))
    answers = PhotoNamer(tiny_clip, words)(photos)
    assert [answer.word for answer in answers] == ["red", "blue"]
    opposite = TextClassifier(-features, ["red", "blue"], background=Background(features, ["a", "b"], 1e4))
    answers = PhotoNamer(tiny_clip, opposite)(photos)
    assert [answer.word for answer in answers] == [None, None]
    assert answers[0].none == pytest.approx(1)
    assert PhotoNamer(tiny_clip, words)([]) == []


def test_what_cannot_name_photos_is_one_line(tiny_clip: Clip) -> None:
    width = tiny_clip.embed_dim
    with pytest.raises(UserError, match="has no background; build it with"):
        PhotoNamer(tiny_clip, TextClassifier(torch.ones(1, width), ["a"]))
    other = TextClassifier(torch.ones(1, width + 1), ["a"], background=Background(torch.ones(1, width + 1), ["b"], 1.0))
    with pytest.raises(UserError, match=f"width {width + 1}"):
        PhotoNamer(tiny_clip, other)
    fits = TextClassifier(torch.ones(1, width), ["a"], background=Background(torch.ones(1, width), ["b"], 1.0))
    with pytest.raises(UserError, match=r"from 0 to below 1 is expected, given 1\.5"):
        PhotoNamer(tiny_clip, fits, threshold=1.5)
