"""Scores of methods: each by its own features, conditional ones by the same rules as all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prompt_core import UserError
from prompt_core.clip import Clip
from prompt_core.evaluation.evaluate import TestSet
from prompt_core.evaluation.method_scoring import score_method
from prompt_core.methods.cocoop import CoCoOp
from prompt_core.methods.image_towers import LearnedImageTower, RawImageTower, image_tower
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.metrics import zero_shot_accuracy
from prompt_core.vocabulary import Vocabulary


def made_up(vocabulary: Vocabulary, count: int = 30, features: Any = None) -> TestSet:
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(count) % len(vocabulary)
    if features is None:
        features = torch.nn.functional.normalize(torch.randn(count, 24, generator=generator), dim=-1).numpy()
    return TestSet(features, labels, vocabulary, [], "hash", "made up")


@pytest.mark.parametrize("merge", [True, False])
def test_a_conditional_method_is_scored_by_the_same_rules(clip: Clip, vocabulary: Vocabulary, merge: bool) -> None:
    """A meta-net that always says nothing makes CoCoOp CoOp."""
    plain = SoftPromptMethod(clip, init="a photo of a")
    conditional = CoCoOp(clip, reduction=4)
    with torch.no_grad():
        conditional.meta_net[2].weight.zero_()
        conditional.meta_net[2].bias.zero_()
    # Namesakes that are not merged tie, and rounding decides between them.
    vocabulary = vocabulary if merge else vocabulary[:5]
    test_set = made_up(vocabulary)
    theirs, ours = (vars(score_method(each, test_set, merge, batch=7)) for each in (plain, conditional))
    assert ours.pop("by_class") == pytest.approx(theirs.pop("by_class"), abs=1e-6)
    assert ours == pytest.approx(theirs, abs=1e-6)
    expected = zero_shot_accuracy(
        test_set.features,
        test_set.labels,
        plain.class_features(vocabulary).detach(),
        vocabulary.name_groups if merge else None,
    )
    assert score_method(plain, test_set, merge) == expected
    assert expected.candidates == 5
    with pytest.raises(UserError, match="no images to score"):
        score_method(conditional, made_up(vocabulary, 0, np.zeros((0, 24), dtype=np.float32)))


def test_a_conditional_method_classifies_each_image_by_its_own_classes(clip: Clip, vocabulary: Vocabulary) -> None:
    method = CoCoOp(clip, reduction=4)
    with torch.no_grad():
        method.meta_net[2].weight.mul_(20)
    vocabulary = vocabulary[:5]
    test_set = made_up(vocabulary)
    with torch.no_grad():
        predicted = method.logits(torch.from_numpy(test_set.features), vocabulary).argmax(dim=1).numpy()
    found = score_method(method, test_set, merge_namesakes=False, batch=4)
    assert found.top1 == pytest.approx((predicted == test_set.labels).mean())


def test_a_probe_tells_namesakes_apart(clip: Clip, make_method: Callable[..., Any], vocabulary: Vocabulary) -> None:
    method = make_method("linear_probe", clip)
    features = 5 * torch.randn(30, 24, generator=torch.Generator().manual_seed(1))
    test_set = made_up(vocabulary, 30, features.numpy())
    found = score_method(method, test_set, merge_namesakes=True)
    assert found.candidates == 6
    with torch.no_grad():
        predicted = method.layer(features).argmax(dim=1).numpy()
    assert found.top1 == pytest.approx((predicted == test_set.labels).mean())


def test_each_tower_has_a_fingerprint_of_its_own(clip: Clip, make_method: Callable[..., Any]) -> None:
    first, second = make_method("vpt", clip, seed=1), make_method("vpt", clip, seed=2)
    towers = [image_tower(make_method("coop", clip)), image_tower(make_method("linear_probe", clip))]
    towers += [image_tower(first), image_tower(second)]
    assert towers[0] is clip
    assert isinstance(towers[1], RawImageTower)
    assert isinstance(towers[2], LearnedImageTower)
    assert len({tower.image_fingerprint for tower in towers}) == 4
    assert LearnedImageTower(first).image_fingerprint == image_tower(first).image_fingerprint
    pixels = torch.randn(2, 3, 32, 32)
    raw = towers[1].encode_image(pixels)
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=-1), clip.encode_image(pixels))
    assert float((raw.norm(dim=-1) - 1).abs().min()) > 1e-3
    learned = towers[2].encode_image(pixels)
    assert not learned.requires_grad
    assert float((learned - clip.encode_image(pixels)).norm()) > 1e-3


def test_features_come_from_the_cache_under_their_own_key(
    clip: Clip, make_method: Callable[..., Any], tmp_path: Path
) -> None:
    from PIL import Image

    from prompt_core.data.sources import open_images
    from prompt_core.evaluation.evaluate import load_test_set

    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(2):
            Image.effect_noise((40, 40), 60 + index).convert("RGB").save(tmp_path / "photos" / name / f"{index}.png")
    images = open_images(f"folder:{tmp_path / 'photos'}")
    methods = [make_method(name, clip) for name in ("coop", "vpt", "maple")]
    sets = [load_test_set(image_tower(method), images, "", tmp_path / "cache") for method in methods]
    assert len([entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]) == 3
    for method, test_set in zip(methods, sets, strict=True):
        pixels = torch.stack([clip.preprocess(images.read(index)) for index in range(4)])
        inputs = pixels if method.reads == "images" else clip.encode_image(pixels)
        with torch.no_grad():
            expected = method.logits(inputs, test_set.candidates).argmax(dim=1).numpy()
        found = score_method(method, test_set)
        assert found.top1 == pytest.approx((expected == test_set.labels).mean())
