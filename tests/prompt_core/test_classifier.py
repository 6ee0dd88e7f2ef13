"""Classifiers: built from prompts and templates, and their files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from prompt_core import PromptedTextEncoder, SoftPrompt, TextClassifier, UserError, Vocabulary, load_clip
from prompt_core.classifier import prompt_sha256
from prompt_core.clip import Clip

NAMES = ["cat", "hot_dog", "cap_(headwear)"]
WEIGHT = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Matrices this small are bound by the threads' waiting for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def encode(clip: Clip, texts: Sequence[str]) -> torch.Tensor:
    """open_clip's own features, unit-norm."""
    with torch.no_grad():
        return clip.model.encode_text(clip.tokenizer(list(texts)), normalize=True)  # type: ignore[operator]


def prompt() -> SoftPrompt:
    return SoftPrompt.random(32, 4, std=0.5)


def test_rows_are_unit_norm_float32_copies() -> None:
    source = (5 * WEIGHT).half().requires_grad_()
    classifier = TextClassifier(source, ("a", "b", "c"), {"x": 1})
    assert classifier.weight.dtype == torch.float32
    assert not classifier.weight.requires_grad
    torch.testing.assert_close(classifier.weight.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(classifier.weight, F.normalize(WEIGHT), atol=1e-3, rtol=0)
    assert classifier.names == ["a", "b", "c"]
    assert classifier.metadata == {"x": 1}
    assert len(classifier) == 3


def test_logits_are_scaled_cosines() -> None:
    classifier = TextClassifier(WEIGHT, NAMES)
    images = F.normalize(torch.randn(5, 8, dtype=torch.float64), dim=1)
    logits = classifier.logits(images, 50.0)
    assert logits.shape == (5, 3)
    cosines = F.cosine_similarity(images[:, None], WEIGHT[None].double(), dim=2)
    torch.testing.assert_close(logits, 50 * cosines, atol=1e-4, rtol=0)
    torch.testing.assert_close(classifier.logits(images) * 50, logits)


def test_build_with_a_prompt(tiny_clip: Clip) -> None:
    soft = prompt()
    classifier = TextClassifier.build(tiny_clip, NAMES, soft)
    with torch.no_grad():
        expected = PromptedTextEncoder(tiny_clip)(soft, NAMES, reference=True)
    torch.testing.assert_close(classifier.weight, expected, atol=1e-5, rtol=0)
    assert classifier.names == NAMES
    words = TextClassifier.build(tiny_clip, NAMES, SoftPrompt.from_words(tiny_clip, "a photo of a"))
    texts = ["a photo of a cat.", "a photo of a hot dog.", "a photo of a cap (headwear)."]
    torch.testing.assert_close(words.weight, encode(tiny_clip, texts), atol=1e-5, rtol=0)


def test_build_with_one_template(tiny_clip: Clip) -> None:
    classifier = TextClassifier.build(tiny_clip, NAMES, "a {} in the {}")
    texts = ["a cat in the cat", "a hot dog in the hot dog", "a cap (headwear) in the cap (headwear)"]
    torch.testing.assert_close(classifier.weight, encode(tiny_clip, texts), atol=1e-5, rtol=0)


def test_templates_are_averaged_then_normalised(tiny_clip: Clip) -> None:
    templates = ["itap of a {}.", "art of the {}.", "{} texture"]
    classifier = TextClassifier.build(tiny_clip, ["cat", "dog"], templates)
    by_template = torch.stack(
        [encode(tiny_clip, [template.format(name) for name in ("cat", "dog")]) for template in templates]
    )
    assert float((by_template[0] - by_template[1]).abs().max()) > 1e-2
    torch.testing.assert_close(classifier.weight, F.normalize(by_template.mean(dim=0), dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["prompt", "templates"])
def test_synonyms_are_averaged_then_normalised(tiny_clip: Clip, kind: str) -> None:
    # The name among its synonyms, as LVIS has it, counts once.
    vocabulary = Vocabulary(["cat", "dog", "car"], synonyms=[["cat", "kitty", "puss"], [], ["auto", "auto"]])
    how = prompt() if kind == "prompt" else ["a {}.", "the {}"]
    classifier = TextClassifier.build(tiny_clip, vocabulary, how, synonyms=True)
    plain = TextClassifier.build(tiny_clip, ["cat", "kitty", "puss", "dog", "car", "auto"], how).weight
    expected = torch.stack([plain[:3].mean(dim=0), plain[3], plain[4:].mean(dim=0)])
    torch.testing.assert_close(classifier.weight, F.normalize(expected, dim=1), atol=1e-5, rtol=0)
    assert classifier.names == ["cat", "dog", "car"]
    assert classifier.metadata["synonyms"] is True
    without = TextClassifier.build(tiny_clip, vocabulary, how)
    torch.testing.assert_close(without.weight, plain[[0, 3, 4]], atol=1e-5, rtol=0)
    assert without.metadata["synonyms"] is False


def test_raw_features_of_synonyms_are_averaged_before_their_norm(tiny_clip: Clip) -> None:
    vocabulary = Vocabulary(["cat", "dog", "car"], synonyms=[["cat", "kitty", "puss"], [], ["auto", "auto"]])
    groups = [["cat", "kitty", "puss"], ["dog"], ["car", "auto"]]
    templates = ["a {}.", "itap of the {}"]
    expected = torch.zeros(3, 24)
    for template in templates:
        for row, group in enumerate(groups):
            with torch.no_grad():
                ids = tiny_clip.tokenizer([template.format(name) for name in group])
                raw = tiny_clip.model.encode_text(ids)  # type: ignore[operator]
            expected[row] += F.normalize(raw.mean(dim=0), dim=0)
    classifier = TextClassifier.build(tiny_clip, vocabulary, templates, synonyms=True, average_raw=True)
    torch.testing.assert_close(classifier.weight, F.normalize(expected, dim=1), atol=1e-5, rtol=0)
    usual = TextClassifier.build(tiny_clip, vocabulary, templates, synonyms=True)
    assert float((usual.weight - classifier.weight)[[0, 2]].abs().max()) > 1e-3
    assert (usual.metadata["average_raw"], classifier.metadata["average_raw"]) == (False, True)
    soft = prompt()
    raw = PromptedTextEncoder(tiny_clip, normalise=False)(soft, ["car", "auto"]).detach()
    by_prompt = TextClassifier.build(tiny_clip, vocabulary, soft, synonyms=True, average_raw=True)
    torch.testing.assert_close(by_prompt.weight[2], F.normalize(raw.mean(dim=0), dim=0), atol=1e-6, rtol=0)
    alone = TextClassifier.build(tiny_clip, ["cat", "dog"], templates, synonyms=True, average_raw=True)
    torch.testing.assert_close(alone.weight, TextClassifier.build(tiny_clip, ["cat", "dog"], templates).weight)
    assert alone.metadata["average_raw"] is False, "nothing was averaged"


def test_underscores_are_kept_where_asked(tiny_clip: Clip) -> None:
    kept = TextClassifier.build(tiny_clip, NAMES, "a {}", keep_underscores=True)
    torch.testing.assert_close(kept.weight, encode(tiny_clip, [f"a {name}" for name in NAMES]), atol=1e-5, rtol=0)
    usual = TextClassifier.build(tiny_clip, NAMES, "a {}")
    assert torch.equal(kept.weight[0], usual.weight[0])
    assert float((kept.weight - usual.weight)[1:].norm(dim=1).min()) > 1e-2
    assert (kept.metadata["keep_underscores"], usual.metadata["keep_underscores"]) == (True, False)
    vocabulary = Vocabulary(NAMES, keep_underscores=True)
    assert torch.equal(TextClassifier.build(tiny_clip, vocabulary, "a {}").weight, kept.weight)
    assert torch.equal(TextClassifier.build(tiny_clip, vocabulary, "a {}", keep_underscores=False).weight, usual.weight)
    words = SoftPrompt.from_words(tiny_clip, "a photo of a")
    by_prompt = TextClassifier.build(tiny_clip, vocabulary, words).weight
    texts = [f"a photo of a {name}." for name in NAMES]
    torch.testing.assert_close(by_prompt, encode(tiny_clip, texts), atol=1e-5, rtol=0)


def test_detics_matrix_is_built_by_its_own_rule(shared: Path) -> None:
    """``tools/dump_clip_features.py`` of Detic: "a " before the name as published, tokenised by CLIP, one row a class.

    The published rows are ViT-B/32's, whose weights are not at hand: the rule is checked on another tower, and on the
    published rows that names with an underscore are not encoded with a space.
    """
    clip = load_clip("openai", shared / "golden/prompt_text/weights.safetensors")
    vocabulary = Vocabulary.load("lvis")[::4]
    names = list(vocabulary.names)
    classifier = TextClassifier.build(clip, vocabulary, "a {}", keep_underscores=True)
    torch.testing.assert_close(classifier.weight, encode(clip, ["a " + name for name in names]), atol=2e-5, rtol=0)
    with_spaces = TextClassifier.build(clip, vocabulary, "a {}").weight
    cosines = (classifier.weight * with_spaces).sum(dim=1)
    underscored = torch.tensor(["_" in name for name in names])
    assert int(underscored.sum()) > 75
    assert float(cosines[~underscored].min()) > 1 - 1e-5
    assert float(cosines[underscored].max()) < 1 - 1e-5
    published = {
        name: TextClassifier.load(shared / f"data/clip_text/{name}_clip_a+cname.npy", Vocabulary.load(vocabulary))
        for name, vocabulary in (("lvis_v1", "lvis"), ("coco", "coco"))
    }
    lvis, coco = published["lvis_v1"], published["coco"]
    for row, name in enumerate(coco.names):
        for other in {name, name.replace(" ", "_")} & set(lvis.names):
            cosine = float(coco.weight[row] @ lvis.weight[lvis.names.index(other)])
            assert (cosine > 0.9999) == (other == name), name


def test_a_vocabulary_and_its_names_give_the_same_weight(tiny_clip: Clip) -> None:
    vocabulary = Vocabulary(NAMES, ids=[3, 1, 2], frequency=["r", "c", "f"])
    soft = prompt()
    first, second = TextClassifier.build(tiny_clip, vocabulary, soft), TextClassifier.build(tiny_clip, NAMES, soft)
    assert torch.equal(first.weight, second.weight)
    assert first.names == second.names == NAMES
    assert first.metadata["vocabulary_sha256"] == vocabulary.sha256
    assert second.metadata["vocabulary_sha256"] == Vocabulary(NAMES).sha256


def test_a_given_encoder_is_used(tiny_clip: Clip) -> None:
    encoder = PromptedTextEncoder(tiny_clip)
    calls: list[int] = []
    original = encoder.encode_texts

    def counted(texts: Sequence[str]) -> torch.Tensor:
        calls.append(len(texts))
        return original(texts)

    encoder.encode_texts = counted  # type: ignore[method-assign]
    TextClassifier.build(tiny_clip, NAMES, ["a {}", "the {}"], encoder=encoder)
    assert calls == [3, 3]


def test_class_specific_prompts(tiny_clip: Clip) -> None:
    soft = SoftPrompt.random(32, 2, num_classes=3, std=0.5)
    with torch.no_grad():
        expected = PromptedTextEncoder(tiny_clip)(soft, NAMES)
    torch.testing.assert_close(TextClassifier.build(tiny_clip, NAMES, soft).weight, expected, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="build it without synonyms"):
        TextClassifier.build(tiny_clip, Vocabulary(NAMES, synonyms=[["x"], [], []]), soft, synonyms=True)


def test_provenance(tiny_clip: Clip) -> None:
    soft = prompt()
    by_prompt = TextClassifier.build(tiny_clip, NAMES, soft).metadata
    by_templates = TextClassifier.build(tiny_clip, NAMES, "a {}").metadata
    assert by_prompt["clip"] == "tiny"
    assert by_prompt["pretrained"] is None
    assert by_prompt["clip_sha256"] == tiny_clip.fingerprint
    assert by_prompt["prompt_sha256"] == prompt_sha256(soft)
    assert "templates" not in by_prompt
    assert by_templates["templates"] == ["a {}"]
    assert "prompt_sha256" not in by_templates


def test_prompt_hash_tells_prompts_apart() -> None:
    context = torch.randn(4, 32)
    variants = [
        SoftPrompt(context),
        SoftPrompt(context, "front"),
        SoftPrompt(context + 1e-6),
        SoftPrompt(context.reshape(2, 64)),
        SoftPrompt(context, deep_context=torch.zeros(1, 2, 32)),
    ]
    assert len({prompt_sha256(variant) for variant in variants}) == len(variants)
    assert prompt_sha256(SoftPrompt(context.clone(), metadata={"a": 1})) == prompt_sha256(variants[0])


def test_safetensors_round_trip(tmp_path: Path, tiny_clip: Clip) -> None:
    classifier = TextClassifier.build(tiny_clip, ["é", "b", "b"], ["a {}", "the {}"])
    classifier.save(tmp_path / "a.safetensors")
    loaded = TextClassifier.load(tmp_path / "a.safetensors")
    torch.testing.assert_close(loaded.weight, classifier.weight, atol=1e-7, rtol=0)
    assert loaded.names == ["é", "b", "b"]
    assert loaded.metadata == classifier.metadata
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert list(file.keys()) == ["weight"]
        assert file.get_tensor("weight").dtype == torch.float32
        notes = file.metadata()
    assert json.loads(notes["names"]) == ["é", "b", "b"]
    assert json.loads(notes["templates"]) == ["a {}", "the {}"]
    assert json.loads(notes["clip_sha256"]) == tiny_clip.fingerprint


@pytest.mark.parametrize(("suffix", "files"), [("npy", 2), ("safetensors", 1)])
def test_classifiers_are_on_the_disk_before_they_replace_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, files: int
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    TextClassifier(torch.eye(2), ["cat", "dog"], {}).save(tmp_path / f"two.{suffix}")
    assert len(flushed) == 2 * files  # each with its folder


def test_npy_round_trip(tmp_path: Path) -> None:
    classifier = TextClassifier(WEIGHT, NAMES, {"clip": "tiny"})
    classifier.save(tmp_path / "lvis_v1.0.npy")
    matrix = np.load(tmp_path / "lvis_v1.0.npy")
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, classifier.weight.numpy())
    loaded = TextClassifier.load(tmp_path / "lvis_v1.0.npy")
    assert loaded.names == NAMES
    assert loaded.metadata == {"clip": "tiny", "source": "lvis_v1.0.npy"}
    assert TextClassifier.load(tmp_path / "lvis_v1.0.npy", ["x", "y", "z"]).names == ["x", "y", "z"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lvis_v1.0.names.json", "lvis_v1.0.npy"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_matrices_of_detic_and_pomp(tmp_path: Path, dtype: type) -> None:
    """Bare, in half precision, rows of any length, in either memory order."""
    matrix = (WEIGHT.numpy() * 9).astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(matrix))
    loaded = TextClassifier.load(tmp_path / "a.npy")
    torch.testing.assert_close(loaded.weight, F.normalize(WEIGHT, dim=1), atol=1e-3, rtol=0)
    torch.testing.assert_close(loaded.weight.norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)
    assert loaded.names == ["class 0", "class 1", "class 2"]
    assert TextClassifier.load(tmp_path / "a.npy", NAMES).names == NAMES
    assert TextClassifier.load(tmp_path / "a.npy", Vocabulary(NAMES)).names == NAMES
    assert TextClassifier.load(tmp_path / "a.npy", np.array(NAMES)).names == NAMES  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_rows_without_a_direction_are_refused(tmp_path: Path, bad: float) -> None:
    weight = WEIGHT.clone()
    weight[1] = bad
    with pytest.raises(UserError, match=r"the feature of class 'hot_dog' \(row 1\) is zero or not finite"):
        TextClassifier(weight, NAMES)
    np.save(tmp_path / "a.npy", weight.half().numpy())
    with pytest.raises(UserError, match=r"a\.npy: the feature of class 'hot_dog' \(row 1\)"):
        TextClassifier.load(tmp_path / "a.npy", NAMES)


def test_names_that_do_not_go_with_the_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"given \(3, 8\), 2 names"):
        TextClassifier(WEIGHT, ["a", "b"])
    with pytest.raises(UserError, match=r"given \(8,\), 8 names"):
        TextClassifier(WEIGHT[0], list("abcdefgh"))
    classifier = TextClassifier(WEIGHT, NAMES)
    for file in ("a.npy", "a.safetensors"):
        classifier.save(tmp_path / file)
        with pytest.raises(UserError, match=rf"{file}: .*given \(3, 8\), 2 names"):
            TextClassifier.load(tmp_path / file, ["a", "b"])
        with pytest.raises(UserError, match=r"given \(3, 8\), 0 names"):
            TextClassifier.load(tmp_path / file, [])
        with pytest.raises(UserError, match="single text 'abc'"):
            TextClassifier.load(tmp_path / file, "abc")


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    classifier = TextClassifier(WEIGHT, NAMES)
    for file in ("a.npy", "a.safetensors"):
        classifier.save(tmp_path / file)
        whole = (tmp_path / file).read_bytes()
        for size in (0, 6, 60, len(whole) - 1):
            (tmp_path / f"cut_{file}").write_bytes(whole[:size])
            with pytest.raises(UserError, match=r"cut_a.*could not be read.*truncated"):
                TextClassifier.load(tmp_path / f"cut_{file}")
        with pytest.raises(UserError, match=rf"classifier file .*no_{file} does not exist"):
            TextClassifier.load(tmp_path / f"no_{file}")
    for name, array in {"one": np.ones(3), "three": np.ones((2, 2, 2)), "integers": np.ones((2, 2), int)}.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(UserError, match=r"a floating-point matrix \(N, E\) is expected"):
            TextClassifier.load(tmp_path / f"{name}.npy")
    np.save(tmp_path / "object.npy", np.array([{}]))
    with pytest.raises(UserError, match="could not be read"):
        TextClassifier.load(tmp_path / "object.npy")
    with open(tmp_path / "archive.npy", "wb") as stream:
        np.savez(stream, a=np.ones((2, 2)))
    with pytest.raises(UserError, match="an archive of several"):
        TextClassifier.load(tmp_path / "archive.npy")
    prompt().save(tmp_path / "prompt.safetensors")
    save_file({"weight": WEIGHT}, tmp_path / "nameless.safetensors")
    for name in ("prompt", "nameless"):
        with pytest.raises(UserError, match="it is not a classifier file"):
            TextClassifier.load(tmp_path / f"{name}.safetensors")
    np.save(tmp_path / "b.npy", WEIGHT.numpy())
    for content in ("[]", "{}", '{"names": 3}'):
        (tmp_path / "b.names.json").write_text(content)
        with pytest.raises(UserError, match=r"b\.names\.json: an object with a list 'names'"):
            TextClassifier.load(tmp_path / "b.npy")


def test_bad_templates_and_names(tiny_clip: Clip) -> None:
    with pytest.raises(UserError, match=r"template 'a photo' has no \{\} for the class name"):
        TextClassifier.build(tiny_clip, NAMES, ["a {}", "a photo"])
    with pytest.raises(UserError, match="no template was given"):
        TextClassifier.build(tiny_clip, NAMES, [])
    with pytest.raises(UserError, match="width 16"):
        TextClassifier.build(tiny_clip, NAMES, SoftPrompt.random(16, 4))
    with pytest.raises(UserError, match="the text tower takes 77"):
        TextClassifier.build(tiny_clip, ["cat " * 80], "a {}")
    with pytest.raises(UserError, match="single text 'cat'"):
        TextClassifier.build(tiny_clip, "cat", "a {}")


def test_published_matrices(shared: Path) -> None:
    folder = shared / "data" / "clip_text"
    lvis = TextClassifier.load(folder / "lvis_v1_clip_pomp+cname.npy", Vocabulary.load("lvis"))
    coco = TextClassifier.load(folder / "coco_clip_pomp+cname.npy", Vocabulary.load("coco"))
    assert lvis.weight.shape == (1203, 512)
    assert coco.weight.shape == (80, 512)
    places = {name.replace("_", " "): row for row, name in enumerate(lvis.names)}
    shared_names = [(row, places[name]) for row, name in enumerate(coco.names) if name in places]
    assert len(shared_names) == 59
    rows, others = zip(*shared_names, strict=True)
    cosines = (coco.weight[list(rows)] * lvis.weight[list(others)]).sum(dim=1)
    assert float(cosines.min()) > 0.999999
