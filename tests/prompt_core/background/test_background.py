"""A classifier's background: which names stay, negative words, its file, its cached matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from prompt_core import TextClassifier, UserError, Vocabulary
from prompt_core.background.background import Background, background_of, cached_matrix, calibrated_scale
from prompt_core.clip import Clip, load_clip
from prompt_core.text.encoder import PromptedTextEncoder

PLACES = ["dog", "cat", "Chihuahua", "banana", "Banana", "shadow"]


def encode(vocabulary: Vocabulary) -> torch.Tensor:
    """A feature of its own for each name."""
    return torch.eye(16)[[PLACES.index(name) for name in vocabulary.names]]


def background(words: list[str], names: list[str], negatives: tuple[str, ...] = ()) -> Background:
    own = Vocabulary(words)
    return background_of(own, encode(own), Vocabulary(names), negatives, encode, 30.0, cache_key=names)


def test_relatives_go_negatives_stay_and_no_text_counts_twice() -> None:
    assert background(["dog"], PLACES).names == ["cat", "banana", "shadow"]
    built = background(["dog"], PLACES, ("Chihuahua", "banana", "banana"))
    assert built.names == ["cat", "shadow", "Chihuahua", "banana"]
    torch.testing.assert_close(built.weight, encode(Vocabulary(built.names)))
    assert built.metadata["relatives_left_out"] == 1, "the other is a negative word"
    assert built.metadata["negatives"] == ["Chihuahua", "banana"]
    assert background(["dog"], [], ("cat",)).names == ["cat"]
    with pytest.raises(UserError, match="'Dog' is one of the words and a negative word"):
        background(["dog"], PLACES, ("Dog",))


def test_kinds_of_a_word_count_for_it() -> None:
    built = background(["dog"], PLACES)
    assert built.kinds is not None
    assert list(built.kinds.names) == ["Chihuahua"]
    assert built.kinds.word.tolist() == [0]
    torch.testing.assert_close(built.kinds.weight, encode(Vocabulary(["Chihuahua"])))
    assert built.metadata["kinds"] == 1
    # a word of its own, or a negative one, is no kind of another
    assert background(["dog", "Chihuahua"], PLACES).kinds is None
    assert background(["dog"], PLACES, ("Chihuahua",)).kinds is None
    assert background(["cat"], PLACES).kinds is None


def test_a_matrix_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.eye(3)

    torch.testing.assert_close(cached_matrix("once" * 10, make, tmp_path), torch.eye(3))
    for number in range(3):  # push it out of this process's memory
        cached_matrix(f"other{number}", lambda: torch.eye(2))
    torch.testing.assert_close(cached_matrix("once" * 10, make, tmp_path), torch.eye(3))
    assert len(made) == 1
    for number in range(3):
        cached_matrix(f"other{number}", lambda: torch.eye(2))
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    torch.testing.assert_close(cached_matrix("once" * 10, make, tmp_path), torch.eye(3))
    assert len(made) == 2


def test_a_classifier_keeps_its_background_in_its_file(tmp_path: Path, tiny_clip: Clip) -> None:
    built = TextClassifier.build(tiny_clip, ["cat", "dog"], "a {}", negatives=["shadow", "fog"])
    plain = TextClassifier.build(tiny_clip, ["cat", "dog"], "a {}")
    assert torch.equal(built.weight, plain.weight)
    assert built.background is not None
    expected = TextClassifier.build(tiny_clip, ["shadow", "fog"], "a {}").weight
    torch.testing.assert_close(built.background.weight, expected)
    assert built.background.logit_scale == tiny_clip.logit_scale
    built.save(tmp_path / "words.safetensors")
    loaded = TextClassifier.load(tmp_path / "words.safetensors")
    assert loaded.background is not None
    assert loaded.names == ["cat", "dog"]
    assert loaded.background.names == ["shadow", "fog"]
    assert loaded.background.metadata == built.background.metadata
    assert loaded.metadata == built.metadata
    images = F.normalize(torch.randn(5, tiny_clip.embed_dim, generator=torch.Generator().manual_seed(0)), dim=1)
    shares = loaded.own_share(images)
    assert torch.equal(shares, built.own_share(images))
    both = torch.cat((plain.weight, expected))
    torch.testing.assert_close(shares, (tiny_clip.logit_scale * images @ both.T).softmax(dim=1)[:, :2])
    torch.testing.assert_close(loaded.own_share(images, 5.0), (5 * images @ both.T).softmax(dim=1)[:, :2])
    with pytest.raises(UserError, match=r"a \.npy has no room for a background"):
        built.save(tmp_path / "words.npy")
    assert not (tmp_path / "words.npy").exists()


def test_features_come_back_to_the_last_bit(tmp_path: Path) -> None:
    rows = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    names = [f"other {row}" for row in range(300)]
    built = TextClassifier(torch.ones(1, 24), ["a"], background=Background(rows, names, 9.0))
    built.save(tmp_path / "a.safetensors")
    loaded = TextClassifier.load(tmp_path / "a.safetensors")
    assert built.background is not None
    assert loaded.background is not None
    torch.testing.assert_close(built.background.weight, F.normalize(rows, dim=1))
    assert torch.equal(loaded.background.weight, built.background.weight)


def test_files_without_background_are_as_before(tmp_path: Path, tiny_clip: Clip) -> None:
    plain = TextClassifier.build(tiny_clip, ["cat"], "a {}")
    plain.save(tmp_path / "plain.safetensors")
    assert load_file(tmp_path / "plain.safetensors").keys() == {"weight"}
    loaded = TextClassifier.load(tmp_path / "plain.safetensors")
    assert loaded.background is None
    with pytest.raises(UserError, match="has no background; build it with background='imagenet21k'"):
        loaded.own_share(loaded.weight)


def test_a_vocabulary_as_background(tiny_clip: Clip, tmp_path: Path) -> None:
    names = Vocabulary(["zebra crossing", "violin", "cat"])
    built = TextClassifier.build(tiny_clip, ["cat"], "a {}", background=names, logit_scale=7.0, cache=tmp_path)
    assert built.background is not None
    assert built.background.logit_scale == 7.0
    assert "cat" not in built.background.names
    assert built.background.metadata["vocabulary_sha256"] == names.sha256
    assert len(list(tmp_path.glob("background_*.safetensors"))) == 1


def test_a_background_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a background \(B, E\) with B names"):
        Background(torch.ones(2, 3), ["a"], 1.0)
    with pytest.raises(UserError, match="a logit scale above 0, given 0"):
        Background(torch.ones(1, 3), ["a"], 0.0)
    with pytest.raises(UserError, match="the background has width 3, the classes 4"):
        TextClassifier(torch.ones(1, 4), ["a"], background=Background(torch.ones(1, 3), ["b"], 1.0))


def test_scales_that_were_calibrated() -> None:
    assert calibrated_scale("mini", 30.0) > 30
    assert calibrated_scale("ViT-B-16", 100.0) == 100


def test_the_package_has_the_names_of_imagenet21k_by_mini(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = load_clip("mini")
    encoded: list[str] = []
    original = PromptedTextEncoder.encode_texts

    def counted(self: PromptedTextEncoder, texts: Sequence[str], *arguments: Any, **options: Any) -> torch.Tensor:
        encoded.extend(texts)
        return original(self, texts, *arguments, **options)

    monkeypatch.setattr(PromptedTextEncoder, "encode_texts", counted)
    words = TextClassifier.build(clip, ["tabby"], "a photo of a {}.", background="imagenet21k")
    assert encoded == ["a photo of a tabby."]
    assert words.background is not None
    assert len(words.background) > 20_000
    rows = [0, 1000, 20_000]
    expected = TextClassifier.build(clip, [words.background.names[row] for row in rows], "a photo of a {}.")
    torch.testing.assert_close(words.background.weight[rows], expected.weight, atol=1e-3, rtol=0)
