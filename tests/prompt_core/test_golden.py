"""Parity with the published implementation, on its own weights, inputs and outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prompt_core import (
    PromptedTextEncoder,
    SoftPrompt,
    TextClassifier,
    alignment,
    full_softmax_logits,
    load_clip,
    local_contrast_logits,
    uniformity,
)

POSITIONS = ("end", "middle", "front")


def load_case(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and settings of one fixture."""
    return load_file(folder / "cases.safetensors"), json.loads((folder / "settings.json").read_text())


@pytest.fixture(scope="module")
def encoder(shared: Path) -> PromptedTextEncoder:
    return PromptedTextEncoder(load_clip("openai", shared / "golden/prompt_text/weights.safetensors"))


@pytest.fixture(scope="module")
def two_heads_encoder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptedTextEncoder:
    weights = load_file(shared / "golden/prompt_text_two_heads/weights_compact.safetensors")
    ids, rows = weights.pop("token_embedding.used_ids"), weights.pop("token_embedding.used_rows")
    weights["token_embedding.weight"] = torch.zeros(49408, rows.shape[1])
    weights["token_embedding.weight"][ids.long()] = rows
    if "visual.proj" not in weights and "visual.layer1.0.conv1.weight" not in weights:
        pytest.fail("the compact weights changed: no image tower")
    path = tmp_path_factory.mktemp("two_heads") / "weights.safetensors"
    save_file(weights, path)
    return PromptedTextEncoder(load_clip("openai", path))


def check_prompts(
    encoder: PromptedTextEncoder, tensors: dict[str, torch.Tensor], settings: dict[str, Any], method: str
) -> int:
    names = settings["class_names"]
    checked = 0
    for case in settings["cases"]:
        prompt = SoftPrompt(tensors[f"{case['case']}.ctx"], case["position"])
        options: dict[str, Any] = {"reference": {"reference": True}, "chunks": {"chunk_size": 7}}.get(method, {})
        if method == "packed":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("prompt_core.text.encoder.PACKED_MINIMUM_WORK", 0.0)
                features = encoder(prompt, names)
        else:
            features = encoder(prompt, names, **options)
        torch.testing.assert_close(features.detach(), tensors[f"{case['case']}.features"], atol=1e-5, rtol=0)
        checked += 1
    return checked


@pytest.mark.parametrize("method", ["auto", "packed", "chunks", "reference"])
def test_prompt_text_features(encoder: PromptedTextEncoder, shared: Path, method: str) -> None:
    tensors, settings = load_case(shared / "golden/prompt_text")
    assert check_prompts(encoder, tensors, settings, method) >= 9


@pytest.mark.parametrize("method", ["auto", "packed", "reference"])
def test_prompt_text_two_heads(two_heads_encoder: PromptedTextEncoder, shared: Path, method: str) -> None:
    tensors, settings = load_case(shared / "golden/prompt_text_two_heads")
    assert check_prompts(two_heads_encoder, tensors, settings, method) >= 4


def test_prompt_text_tokens(encoder: PromptedTextEncoder, shared: Path) -> None:
    tensors, settings = load_case(shared / "golden/prompt_text")
    for case, n_ctx in (("ctx4_end", 4), ("ctx16_end", 16)):
        sequences = encoder.tokenizer.prompts(settings["class_names"], n_ctx, "end")
        ids = torch.from_numpy(sequences.padded(77, encoder.tokenizer.context_token))
        assert torch.equal(ids, tensors[f"{case}.tokens"].long())


def test_plain_template_and_images(encoder: PromptedTextEncoder, shared: Path) -> None:
    tensors, settings = load_case(shared / "golden/prompt_text")
    classifier = TextClassifier.build(
        encoder.clip, settings["class_names"], settings["plain_template"], encoder=encoder
    )
    torch.testing.assert_close(classifier.weight, tensors["plain.features"], atol=1e-5, rtol=0)
    images = encoder.clip.encode_image(tensors["images"])
    torch.testing.assert_close(images, tensors["image_features"], atol=1e-5, rtol=0)
    logits = classifier.logits(images, encoder.clip.logit_scale)
    torch.testing.assert_close(logits, tensors["plain.logits"], atol=5e-4, rtol=0)


def test_words_initialise_the_published_context(encoder: PromptedTextEncoder, shared: Path) -> None:
    tensors, _ = load_case(shared / "golden/prompt_text")
    prompt = SoftPrompt.from_words(encoder.clip, "a photo of a")
    torch.testing.assert_close(prompt.context.detach(), tensors["words_end.ctx"], atol=0, rtol=0)


def test_pomp_loss_logits_loss_and_gradient(encoder: PromptedTextEncoder, shared: Path) -> None:
    tensors, settings = load_case(shared / "golden/pomp_loss")
    names = load_case(shared / "golden/prompt_text")[1]["class_names"]
    labels = tensors["labels"].long()
    images = tensors["image_features"]
    for case in settings["cases"]:
        name = case["case"]
        prompt = SoftPrompt(tensors[f"{name}.ctx"])
        features = encoder(prompt, names)
        scale = encoder.clip.logit_scale
        if case.get("local_contrast", True) and f"{name}.negative_ids" in tensors:
            ids = tensors[f"{name}.negative_ids"].long()
            logits = local_contrast_logits(
                images, features[labels], features[ids], labels, ids, len(names), scale, case["correction"]
            )
            target = torch.zeros(len(labels), dtype=torch.long)
        else:
            logits, target = full_softmax_logits(images, features, labels, scale), labels
        expected = tensors[f"{name}.logits"]
        allowed = expected > -1e5
        torch.testing.assert_close(logits[allowed], expected[allowed], atol=2e-4, rtol=0)
        assert bool((logits[~allowed] < -9e5).all())
        loss = torch.nn.functional.cross_entropy(logits, target)
        torch.testing.assert_close(loss, tensors[f"{name}.loss"].squeeze(), atol=1e-4, rtol=0)
        loss.backward()
        gradient, published = prompt.context.grad, tensors[f"{name}.grad_ctx"]
        assert gradient is not None
        assert float((gradient - published).norm() / published.norm()) < 1e-4


def test_alignment_and_uniformity(shared: Path) -> None:
    tensors, _ = load_case(shared / "golden/metrics")
    torch.testing.assert_close(
        alignment(tensors["align.x"], tensors["align.y"]), tensors["align.loss"].squeeze(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(uniformity(tensors["uniform.x"]), tensors["uniform.loss"].squeeze(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("file", "classes", "expected"),
    [
        ("lvis_v1_clip_pomp+cname", 1203, -1.233),
        ("coco_clip_pomp+cname", 80, -1.091),
        ("o365_fixname_clip_pomp+cname", 365, -1.176),
        ("lvis_v1_clip_a+cname", 1203, -1.009),
        ("coco_clip_a+cname", 80, -0.790),
        ("o365_clip_a+cnamefix", 365, -0.919),
    ],
)
def test_published_class_matrices(shared: Path, tmp_path: Path, file: str, classes: int, expected: float) -> None:
    path = shared / f"data/clip_text/{file}.npy"
    classifier = TextClassifier.load(path)
    assert classifier.weight.shape == (classes, 512)
    assert float(uniformity(classifier.weight)) == pytest.approx(expected, abs=6e-4)
    classifier.save(tmp_path / "again.npy")
    again = TextClassifier.load(tmp_path / "again.npy")
    torch.testing.assert_close(again.weight, classifier.weight, atol=1e-6, rtol=0)
