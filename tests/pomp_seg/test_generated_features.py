"""ZS3 and CaGNet: losses against plain float64 references, and a model that learns classes without labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pomp_seg import build_segmenter, load_config
from pomp_seg.data.registration import register_files
from pomp_seg.generated.moment_matching import BANDWIDTHS, moment_matching_loss, moments_by_class
from pomp_seg.generated.networks import (
    DILATIONS,
    ContextualModule,
    Discriminator,
    FeatureGenerator,
    adversarial_losses,
    gaussian_divergence,
)
from pomp_seg.generated.pixels import at_features, some_of_each, surest_unseen
from pomp_seg.generated.word_rows import word_rows
from pomp_seg.models.generated_features import GeneratorOptions
from prompt_core import TextClassifier, UserError

from ..support.segmenter_run import NAMES, make_data, tiny_settings, unregister

GENERATED = {
    "MODEL.META_ARCHITECTURE": "GeneratedFeatureModel",
    "MODEL.SEM_SEG_HEAD.NAME": "ZeroPerPixelBaselineHead",
    "MODEL.CLIP_ADAPTER.PROMPT_LEARNER": "predefined",
    "MODEL.GENERATOR.HIDDEN": 16,
    "MODEL.GENERATOR.PIXELS": 8,
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_pairs(generated: Tensor, real: Tensor) -> float:
    """The definition, one pair at a time."""

    def mean(first: Tensor, second: Tensor) -> float:
        values = [
            sum(math.exp(-float((x - y).square().sum()) / (2 * width)) for width in BANDWIDTHS)
            for x in first
            for y in second
        ]
        return float(np.mean(values))

    return math.sqrt(mean(generated, generated) + mean(real, real) - 2 * mean(generated, real))


@settings(max_examples=25, deadline=None)
@given(made=st.integers(1, 6), real=st.integers(1, 6), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_moments_are_those_of_all_pairs(made: int, real: int, width: int, seed: int) -> None:
    generated, truth = 3 * random(made, width, seed=seed), 3 * random(real, width, seed=seed + 1)
    assert float(moment_matching_loss(generated, truth)) == pytest.approx(by_pairs(generated, truth), abs=1e-6)


def test_equal_features_have_no_discrepancy_and_a_gradient_leads_there() -> None:
    real = random(20, 3)
    assert float(moment_matching_loss(real[torch.randperm(20)], real)) < 1e-5
    made = (random(20, 3, seed=1) + 4).requires_grad_()
    optimizer = torch.optim.Adam([made], lr=0.1)
    first = float(moment_matching_loss(made, real).detach())
    for _ in range(80):
        optimizer.zero_grad()
        moment_matching_loss(made, real).backward()
        optimizer.step()
    assert torch.isfinite(made).all()
    assert float(moment_matching_loss(made, real).detach()) < 0.3 * first
    by_class = moments_by_class(made.detach(), real, torch.tensor([0] * 8 + [2] * 12))
    parts = [moment_matching_loss(made.detach()[part], real[part]) for part in (slice(8), slice(8, 20))]
    assert float(by_class) == pytest.approx(float(torch.stack(parts).mean()))
    assert float(moments_by_class(made[:0], real[:0], torch.zeros(0))) == 0
    for wrong in ((made[:0], real), (made, real[:, :2])):
        with pytest.raises(UserError, match=r"features \(M, D\) and \(N, D\) are expected"):
            moment_matching_loss(*wrong)


def test_the_divergence_is_that_of_gaussians() -> None:
    mean, log_variance = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    one = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(one, torch.distributions.Normal(torch.zeros_like(mean), 1.0)).mean()
    torch.testing.assert_close(gaussian_divergence(mean, log_variance), expected)
    assert float(gaussian_divergence(torch.zeros(3), torch.zeros(3))) == 0


def test_the_context_of_a_pixel_is_what_the_dilated_convolutions_reach() -> None:
    module = ContextualModule(4, 3, hidden=5).double()
    features = random(1, 4, 40, 40).requires_grad_()
    mean, log_variance = module(features)
    assert mean.shape == log_variance.shape == (1, 3, 40, 40)
    mean[0, :, 20, 20].sum().backward()
    assert features.grad is not None
    touched = torch.nonzero(features.grad[0].abs().sum(dim=0))
    # three dilated convolutions, that of the weights and the last one
    assert (touched - 20).abs().max() == sum(DILATIONS) + 2


def test_neither_player_changes_what_the_other_learns() -> None:
    discriminator, made, real = Discriminator(3, 4).double().eval(), random(5, 3).requires_grad_(), random(6, 3, seed=1)
    fools, told = adversarial_losses(discriminator, made, real)
    assert float(fools) == pytest.approx(float((discriminator(made) - 1).abs().mean()))
    expected = discriminator(made).abs().mean() + (discriminator(real) - 1).abs().mean()
    assert float(told) == pytest.approx(float(expected))
    fools.backward()
    assert made.grad is not None
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    given_before = made.grad.clone()
    told.backward()
    assert torch.equal(made.grad, given_before)
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


def test_pixels_that_are_learned_from() -> None:
    labels = torch.tensor([0] * 50 + [3] * 4 + [255] * 20)
    chosen = some_of_each(labels, 10, 255)
    assert torch.bincount(labels[chosen], minlength=4).tolist() == [10, 0, 0, 4]
    assert len(chosen.unique()) == 14
    assert some_of_each(torch.full((5,), 255), 10, 255).tolist() == []
    # classes 1 and 2 are unseen; half of each one's pixels, the surest ones
    logits = torch.tensor([[0, 3.0, 0], [0, 1, 0], [5, 0, 0], [0, 0, 2], [0, 2, 0], [0, 4, 0]])
    places, answers = surest_unseen(logits, torch.tensor([False, True, True]), 0.5)
    assert sorted(zip(places.tolist(), answers.tolist(), strict=True)) == [(0, 1), (3, 2), (5, 1)]
    maps = torch.arange(16).reshape(1, 4, 4)
    assert at_features(maps, (2, 2)).tolist() == [[[0, 2], [8, 10]]]


def test_words_come_from_clip_or_from_a_matrix(tmp_path: Path) -> None:
    vectors = TextClassifier(random(5, 7).float(), ["Sky", "cat", "boat", "traffic_light", "fog"])
    vectors.save(tmp_path / "words.npy")
    rows = word_rows(NAMES, str(tmp_path / "words.npy"), lambda names: torch.zeros(0))
    centred = vectors.weight[[1, 0, 3, 2]] - vectors.weight[[1, 0, 3, 2]].mean(dim=0)
    torch.testing.assert_close(rows, 7**0.5 * torch.nn.functional.normalize(centred, dim=1))
    with pytest.raises(UserError, match="has no row for the class 'dog'"):
        word_rows(["dog"], str(tmp_path / "words.npy"), lambda names: torch.zeros(0))
    with pytest.raises(UserError, match="KIND is 'gan'; expected zs3 or cagnet"):
        GeneratorOptions("gan")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("generated")
    make_data(folder)
    yield folder
    unregister()


def tiny_model(root: Path, **changed: Any) -> Any:
    given_settings = tiny_settings(root) | GENERATED | changed
    width = given_settings["MODEL.SEM_SEG_HEAD.EMBEDDING_DIM"]
    cfg = load_config(None, given_settings | {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": width})
    register_files(cfg.DATASETS.FILES)
    torch.manual_seed(0)
    return build_segmenter(cfg)


def easy_features(labels: Tensor, words: Tensor, features: int) -> Tensor:
    """(B, D, h, w): a linear map of each pixel's word, and little noise."""
    map_of_words = random(words.shape[1], features, seed=5).float()
    pixels = words[labels.clamp(max=len(words) - 1)] @ map_of_words
    pixels = pixels + 0.1 * torch.randn(pixels.shape)
    return torch.nn.functional.normalize(pixels, dim=-1).permute(0, 3, 1, 2) * features**0.5


@pytest.mark.parametrize("kind", ["zs3", "cagnet"])
def test_losses_learn_the_new_parts_alone(root: Path, kind: str) -> None:
    model = tiny_model(root, **{"MODEL.GENERATOR.KIND": kind})
    model.train()
    assert not model.backbone.training
    image = torch.randint(0, 255, (3, 48, 64), dtype=torch.uint8)
    labels = torch.randint(0, 3, (48, 64))
    labels[:10] = 255
    batch = [{"image": image, "sem_seg": labels, "meta": {"dataset_name": "tiny_train"}}]
    losses = model(batch)
    more = {"loss_context", "loss_adversarial", "loss_discriminator"} if kind == "cagnet" else set()
    assert set(losses) == {"loss_moments", "loss_classes"} | more
    sum(losses.values()).backward()
    learning = {name.partition(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {"generator", "classifier"} | ({"context", "discriminator"} if kind == "cagnet" else set())
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    # a photo without any label changes the classes' part alone
    empty = model([{**batch[0], "sem_seg": torch.full((48, 64), 255)}])
    assert float(empty["loss_moments"].detach()) == 0
    assert all(torch.isfinite(value) for value in empty.values())


def test_a_class_without_labels_is_found_by_its_word(root: Path) -> None:
    """Four classes whose features follow from their words; one of them never has a label."""
    model = tiny_model(root, **{"MODEL.GENERATOR.HIDDEN": 0, "MODEL.GENERATOR.PIXELS": 32})
    model.train()
    width = model.classifier.in_features
    model.__dict__["words"] = words = torch.nn.functional.normalize(random(4, 24).float(), dim=1) * 24**0.5
    words[3] = words[:3].sum(dim=0) / 3**0.5 + 0.5 * random(24).float()  # near what the seen ones span
    torch.manual_seed(1)
    model.generator = FeatureGenerator(24, 24, width, 0)
    optimizer = torch.optim.Adam([*model.generator.parameters(), *model.classifier.parameters()], lr=0.02)
    model._noise = lambda count: 0.3 * torch.randn(count, 24)
    truth = torch.randint(0, 4, (2, 12, 12))
    for _ in range(120):
        losses = model.losses(easy_features(truth, words, width), torch.where(truth == 3, 255, truth), 255)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    model.eval()
    pixels = easy_features(truth, words, width).permute(0, 2, 3, 1)
    answers = model.classifier(pixels).argmax(dim=-1)
    assert (answers == truth)[truth != 3].float().mean() > 0.95
    assert (answers == truth)[truth == 3].float().mean() > 0.8


def test_where_pixels_say_nothing_a_class_without_labels_is_as_likely_as_others(root: Path) -> None:
    model = tiny_model(root, **{"MODEL.GENERATOR.PIXELS": 32})
    model.train()
    model.__dict__["words"] = torch.zeros(4, 24)
    model.generator = FeatureGenerator(24, 24, model.classifier.in_features, 0)
    model.generator.requires_grad_(False)
    same = torch.ones(1, model.classifier.in_features, 12, 12)
    model._noise = lambda count: torch.zeros(count, 24)
    model.generator.layers[-1].bias.data = torch.ones(model.classifier.in_features)
    optimizer = torch.optim.Adam(model.classifier.parameters(), lr=0.05)
    for step in range(150):
        labels = torch.full((1, 12, 12), 255)
        labels[0, 0, :6] = step % 3  # six pixels of one class; the others are not in the photo
        loss = model.losses(same, labels, 255)["loss_classes"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    probability = model.classifier(same[:, :, 0, 0]).softmax(dim=1)[0]
    assert model.unseen.tolist() == [False, False, False, True]
    assert 0.15 < float(probability[3].detach()) < 0.4


def test_predictions_are_of_the_asked_classes(root: Path) -> None:
    model = tiny_model(root).eval()
    example = {"image": torch.randint(0, 255, (3, 48, 64), dtype=torch.uint8), "height": 96, "width": 128,
               "meta": {"dataset_name": "tiny"}}  # fmt: skip
    scores = model([example])[0]["sem_seg"]
    assert scores.shape == (4, 96, 128)
    torch.testing.assert_close(scores.sum(dim=0), torch.ones(96, 128))
    from pomp_seg.build import set_classes

    set_classes(model, ["boat", "cat"])
    fewer = model([example])[0]["sem_seg"]
    torch.testing.assert_close(fewer[1], scores[0] / (scores[0] + scores[3]))
    set_classes(model, ["zebra"])
    with pytest.raises(UserError, match="learned for 4 classes, 'zebra' is none of them"):
        model([example])
    other = tiny_model(root, **{"MODEL.GENERATOR.CLASSES": "cat,sky,traffic light,zebra"})
    with pytest.raises(UserError, match="the weights were learned for other classes"):
        other.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat,sky,traffic light", "training sees all classes"),
        ("cat,sky,boat", "'traffic light' is not among them"),
        ("sky,cat,traffic light,boat", "their order differs"),
    ],
)
def test_classes_have_to_contain_those_of_the_training(root: Path, classes: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_model(root, **{"MODEL.GENERATOR.CLASSES": classes})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zs3", "cagnet"])
def test_a_run_is_trained_resumed_and_evaluated(root: Path, kind: str) -> None:
    from pomp_engine import run
    from pomp_seg.task import segmentation_task

    changed = {
        "MODEL.GENERATOR.KIND": kind,
        "MODEL.GENERATOR.SELF_TRAINING": 0.5,
        "MODEL.GENERATOR.SELF_TRAINING_FROM": 2,
        "OUTPUT_DIR": str(root / f"run_{kind}"),
    }
    base = tiny_settings(root) | GENERATED | changed
    base["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = base["MODEL.SEM_SEG_HEAD.EMBEDDING_DIM"]
    results = run.train(segmentation_task(), load_config(None, base))
    assert 0 <= results["tiny"]["sem_seg"]["mIoU"] <= 100
    log = Path(base["OUTPUT_DIR"], "log.jsonl").read_text()
    assert "loss_pseudo" in log
    whole = torch.load(Path(base["OUTPUT_DIR"], "model_final.pth"), weights_only=True)["model"]
    # the same, stopped half-way
    halves = base | {"OUTPUT_DIR": str(root / f"halves_{kind}")}
    stop = {"count": 0}

    def interrupted(*_: Any) -> Any:
        stop["count"] += 1
        if stop["count"] == 5:
            raise KeyboardInterrupt
        return original(*_)

    from pomp_seg.models.generated_features import GeneratedFeatureModel

    original = GeneratedFeatureModel.losses
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GeneratedFeatureModel, "losses", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.train(segmentation_task(), load_config(None, halves))
    run.train(segmentation_task(), load_config(None, halves), resume=True)
    again = torch.load(Path(halves["OUTPUT_DIR"], "model_final.pth"), weights_only=True)["model"]
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
