"""The scorer: ties, namesakes, each method by its own features, conditional ones by the same rules as all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prompt_core import PromptedTextEncoder, SoftPrompt, UserError
from prompt_core.clip import Clip
from prompt_core.evaluation.evaluate import TestSet, load_test_set, predict, score, score_classes
from prompt_core.methods.base import Method
from prompt_core.methods.cocoop import CoCoOp
from prompt_core.methods.image_towers import LearnedImageTower, RawImageTower, image_tower
from prompt_core.methods.linear_probe import LinearProbe
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.methods.templates import TemplateMethod
from prompt_core.metrics import zero_shot_accuracy
from prompt_core.vocabulary import Vocabulary


def made_up(vocabulary: Vocabulary, count: int = 30, features: Any = None) -> TestSet:
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(count) % len(vocabulary)
    if features is None:
        features = torch.nn.functional.normalize(torch.randn(count, 24, generator=generator), dim=-1).numpy()
    return TestSet(features, labels, vocabulary, [], "hash", "made up")


NAMESAKES = Vocabulary(
    ["cat", "tea_cup", "dog", "Cat", "tea cup", "oak", "hare", "cat", "pen", "toy car"], ids=list(range(10))
)


@pytest.fixture(scope="module")
def with_namesakes(tiny_clip: Clip) -> tuple[dict[str, Method], TestSet]:
    """Methods of all kinds, and 60 noisy images of ten classes of which three, and two, share a name."""
    prompt = SoftPrompt.random(32, 4, seed=3, std=0.5)
    encoder = PromptedTextEncoder(tiny_clip)
    labels = np.arange(60) % 10
    classes = encoder(prompt, NAMESAKES).detach()
    noise = torch.randn(60, 24, generator=torch.Generator().manual_seed(0))
    features = torch.nn.functional.normalize(classes[torch.from_numpy(labels)] + 1.2 * noise * classes.std(), dim=-1)
    methods = {
        "prompt": SoftPromptMethod.around(encoder, prompt),
        "templates": TemplateMethod(tiny_clip, templates=["{}", "a photo of a {}."]),
        "cocoop": CoCoOp(tiny_clip, n_ctx=2, init="", reduction=4, seed=1),
        "linear_probe": LinearProbe(tiny_clip, names=list(NAMESAKES.names)),
    }
    return methods, TestSet(features.numpy(), labels, NAMESAKES)


# Images right of 60, right among five, classes, and images right of each class: namesakes count as their first, or,
# separate, lose ties to it. The layer of a probe distinguishes them.
RIGHT: dict[tuple[str, bool], tuple[int, int, int, dict[int, int]]] = {
    ("prompt", True): (41, 60, 7, {0: 14, 1: 8, 2: 3, 5: 4, 6: 3, 8: 4, 9: 5}),
    ("prompt", False): (27, 59, 10, {0: 5, 1: 3, 2: 3, 3: 0, 4: 0, 5: 4, 6: 3, 7: 0, 8: 4, 9: 5}),
    ("templates", True): (20, 47, 7, {0: 13, 1: 3, 2: 2, 5: 0, 6: 0, 8: 0, 9: 2}),
    ("templates", False): (12, 36, 10, {0: 5, 1: 3, 2: 2, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, 8: 0, 9: 2}),
    ("cocoop", True): (5, 43, 7, {0: 0, 1: 5, 2: 0, 5: 0, 6: 0, 8: 0, 9: 0}),
    ("cocoop", False): (3, 31, 10, {0: 0, 1: 3, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, 8: 0, 9: 0}),
    ("linear_probe", True): (8, 25, 10, {0: 1, 1: 2, 2: 0, 3: 0, 4: 4, 5: 0, 6: 1, 7: 0, 8: 0, 9: 0}),
    ("linear_probe", False): (8, 25, 10, {0: 1, 1: 2, 2: 0, 3: 0, 4: 4, 5: 0, 6: 1, 7: 0, 8: 0, 9: 0}),
}


@pytest.mark.parametrize(("name", "merge"), RIGHT, ids=str)
def test_ties_and_namesakes(with_namesakes: tuple[dict[str, Method], TestSet], name: str, merge: bool) -> None:
    methods, test_set = with_namesakes
    top1, top5, candidates, of_class = RIGHT[name, merge]
    images = {row: int(np.isin(test_set.labels, _namesakes(row, candidates)).sum()) for row in of_class}
    accuracy = score(methods[name], test_set, merge)
    right = (round(60 * accuracy.top1), round(60 * accuracy.top5))
    assert (*right, accuracy.candidates, accuracy.images) == (top1, top5, candidates, 60)
    assert {row: round(images[row] * value) for row, value in accuracy.by_class.items()} == of_class
    assert accuracy.per_class == pytest.approx(np.mean([right / images[row] for row, right in of_class.items()]))


def _namesakes(row: int, candidates: int) -> list[int]:
    groups = NAMESAKES.name_groups
    return [row] if candidates == 10 else np.flatnonzero(groups == groups[row]).tolist()


def test_exact_ties_go_to_the_first_class() -> None:
    """Three equal classes, the second and third of one name."""
    classes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    images = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]], dtype=np.float32)
    test_set = TestSet(images, np.arange(4), Vocabulary(["a", "b", "B", "c"]))
    assert predict(test_set, classes).tolist() == [0, 0, 0, 3]
    merged, separate = (score_classes(test_set, classes, merge) for merge in (True, False))
    assert (separate.top1, separate.by_class) == (0.5, {0: 1.0, 1: 0.0, 2: 0.0, 3: 1.0})
    assert (merged.top1, merged.by_class, merged.candidates) == (0.5, {0: 1.0, 1: 0.0, 3: 1.0}, 3)
    fewer = test_set.among(np.array([3, 1]), np.array([1, 3]))
    assert (fewer.wide_labels.tolist(), fewer.labels.tolist(), list(fewer.candidates)) == ([1, 3], [1, 0], ["c", "b"])
    assert score_classes(fewer, classes[torch.from_numpy(fewer.rows)]).top1 == 1
    with pytest.raises(UserError, match=r"labels -1\.\.1 for 2 candidate classes"):
        score_classes(test_set.among(np.array([3, 1])), classes[:2])


def test_namesakes_tie_exactly_in_top_five() -> None:
    """Seven of 19 classes share a name, and a feature that differs in its last bits where it was computed."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(19, 100, generator=generator)
    classes[12:] = classes[0] * (1 + 1e-7 * torch.arange(7)[:, None])
    names = [f"class {row}" for row in range(12)] + ["class 0"] * 7
    labels = np.array([0, *range(12, 19)])
    test_set = TestSet(np.repeat(classes[:1].numpy(), 8, axis=0), labels, Vocabulary(names, ids=list(range(19))))
    separate = score_classes(test_set, classes, merge_namesakes=False)
    assert (separate.top1, separate.top5, separate.answers) == (1 / 8, 5 / 8, [0] * 8)
    one_by_one = [
        TestSet(test_set.features[row : row + 1], labels[row : row + 1], test_set.candidates) for row in range(8)
    ]
    alone = [score_classes(one, classes, merge_namesakes=False).top5 for one in one_by_one]
    assert alone == [1, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("merge", [True, False])
def test_a_conditional_method_is_scored_by_the_same_rules(clip: Clip, vocabulary: Vocabulary, merge: bool) -> None:
    """A meta-net that always says nothing makes CoCoOp CoOp."""
    plain = SoftPromptMethod(clip, init="a photo of a")
    conditional = CoCoOp(clip, reduction=4)
    with torch.no_grad():
        conditional.meta_net[2].weight.zero_()
        conditional.meta_net[2].bias.zero_()
    test_set = made_up(vocabulary)
    theirs, ours = (vars(score(method, test_set, merge, batch=7)) for method in (plain, conditional))
    assert ours.pop("by_class") == pytest.approx(theirs.pop("by_class"), abs=1e-6)
    assert ours.pop("answers") == theirs.pop("answers")
    assert ours == pytest.approx(theirs, abs=1e-6)
    expected = zero_shot_accuracy(
        test_set.features,
        test_set.labels,
        plain.class_features(vocabulary).detach(),
        vocabulary.name_groups,
        merge=merge,
    )
    assert score(plain, test_set, merge) == expected
    assert expected.candidates == (5 if merge else 6)
    with pytest.raises(UserError, match="no images to score"):
        score(conditional, made_up(vocabulary, 0, np.zeros((0, 24), dtype=np.float32)))


def test_a_conditional_method_classifies_each_image_by_its_own_classes(clip: Clip, vocabulary: Vocabulary) -> None:
    method = CoCoOp(clip, reduction=4)
    with torch.no_grad():
        method.meta_net[2].weight.mul_(20)
    vocabulary = vocabulary[:5]
    test_set = made_up(vocabulary)
    with torch.no_grad():
        predicted = method.logits(torch.from_numpy(test_set.features), vocabulary).argmax(dim=1).numpy()
    accuracy = score(method, test_set, merge_namesakes=False, batch=4)
    assert accuracy.top1 == pytest.approx((predicted == test_set.labels).mean())


def test_a_probe_tells_namesakes_apart(clip: Clip, make_method: Callable[..., Any], vocabulary: Vocabulary) -> None:
    method = make_method("linear_probe", clip)
    features = 5 * torch.randn(30, 24, generator=torch.Generator().manual_seed(1))
    test_set = made_up(vocabulary, 30, features.numpy())
    accuracy = score(method, test_set, merge_namesakes=True)
    assert accuracy.candidates == 6
    with torch.no_grad():
        predicted = method.layer(features).argmax(dim=1).numpy()
    assert accuracy.top1 == pytest.approx((predicted == test_set.labels).mean())


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
        accuracy = score(method, test_set)
        assert accuracy.top1 == pytest.approx((expected == test_set.labels).mean())
