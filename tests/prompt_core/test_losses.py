"""Local contrast: margins, rejection, and what the sampled loss estimates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prompt_core import (
    HardSampler,
    UniformSampler,
    UserError,
    WeightedSampler,
    correction_margin,
    full_softmax_logits,
    local_contrast_logits,
)
from prompt_core.losses import Correction
from prompt_core.negatives import ClassSampler


def features(count: int, seed: int, width: int = 8) -> Tensor:
    """Unit-norm float64 rows."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1)


def sampled_logits(
    images: Tensor, classes: Tensor, labels: Tensor, drawn: Tensor, scale: float = 10.0, **options: object
) -> Tensor:
    """The call as training makes it."""
    return local_contrast_logits(images, classes[labels], classes[drawn], labels, drawn, len(classes), scale, **options)  # type: ignore[arg-type]


def by_hand(
    images: Tensor,
    classes: Tensor,
    labels: list[int],
    drawn: list[int],
    scale: float,
    correction: Correction,
    groups: list[int] | None,
) -> list[list[float]]:
    """The definition, one entry at a time."""
    groups = groups if groups is not None else list(range(len(classes)))
    rows = []
    for image, label in zip(images, labels, strict=True):
        foes = sum(group != groups[label] for group in groups)
        negatives = sum(groups[row_of_class] != groups[label] for row_of_class in drawn)
        if correction is None:
            margin = 0.0
        elif isinstance(correction, str):
            ratio = max(foes, 1) / max(negatives, 1)
            margin = math.log10(ratio) if correction == "log10" else math.log(ratio)
        else:
            margin = correction
        row = [scale * float(image @ classes[label])]
        for row_of_class in drawn:
            same = groups[row_of_class] == groups[label]
            row.append(-math.inf if same else scale * float(image @ classes[row_of_class]) + margin)
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("num_classes", "k", "log10", "ln"),
    [
        (10450, 100, 2.0234, 4.6591),
        (10450, 319, 1.5166, 3.4922),
        (10450, 500, 1.3210, 3.0417),
        (10450, 1000, 1.0195, 2.3475),
        (1000, 128, 0.8958, None),
        (1000, 256, 0.5930, None),
        (1000, 512, 0.2911, None),
    ],
)
def test_published_margins(num_classes: int, k: int, log10: float, ln: float | None) -> None:
    assert correction_margin(num_classes, k - 1) == pytest.approx(log10, abs=5e-5)
    assert correction_margin(num_classes, k - 1, "log10") == pytest.approx(log10, abs=5e-5)
    if ln is not None:
        assert correction_margin(num_classes, k - 1, "ln") == pytest.approx(ln, abs=5e-5)
    assert correction_margin(num_classes, k - 1, -0.75) == -0.75
    assert correction_margin(num_classes, k - 1, None) == 0


@pytest.mark.parametrize("correction", ["log2", "LN", "1.0", ""])
def test_unknown_corrections_are_refused(correction: str) -> None:
    with pytest.raises(UserError, match=r"unknown correction.*expected log10, ln, a number or None"):
        correction_margin(10, 3, correction)
    images, classes, labels, drawn = features(1, 1), features(5, 2), torch.tensor([0]), torch.tensor([1, 2])
    with pytest.raises(UserError, match="unknown correction"):
        sampled_logits(images, classes, labels, drawn, correction=correction)
    with pytest.raises(UserError, match="unknown correction"):
        sampled_logits(images, classes, labels, drawn, correction=correction, log_inclusion=torch.zeros(2))


@pytest.mark.parametrize(("num_classes", "num_sampled"), [(1, 1), (0, 3), (10, 0)])
def test_margins_of_nothing_are_refused(num_classes: int, num_sampled: int) -> None:
    with pytest.raises(UserError, match=f"given {num_classes} and {num_sampled}"):
        correction_margin(num_classes, num_sampled)


def test_margin_counts_the_images_own_class_among_the_sampled() -> None:
    images, classes = features(2, 1), features(50, 2)
    labels, drawn = torch.tensor([7, 8]), torch.tensor([7, 1, 2, 3])
    shift = sampled_logits(images, classes, labels, drawn) - sampled_logits(
        images, classes, labels, drawn, correction=None
    )
    # 49 classes can be negatives; the first image's own class is one of the four that were drawn.
    assert shift[0, 2:].tolist() == pytest.approx([math.log10(49 / 3)] * 3, abs=1e-6)
    assert shift[1, 1:].tolist() == pytest.approx([math.log10(49 / 4)] * 4, abs=1e-6)
    assert shift[:, 0].tolist() == [0, 0]


def test_own_class_is_rejected_for_its_image_only() -> None:
    images, classes = features(3, 1), features(9, 2)
    labels, drawn = torch.tensor([4, 4, 6]), torch.tensor([4, 6, 0])
    logits = sampled_logits(images, classes, labels, drawn)
    assert torch.isneginf(logits).tolist() == [
        [False, True, False, False],
        [False, True, False, False],
        [False, False, True, False],
    ]
    probabilities = logits.softmax(dim=1)
    assert torch.isfinite(probabilities).all()
    assert probabilities[torch.isneginf(logits)].tolist() == [0, 0, 0]


def test_namesakes_are_rejected_and_counted() -> None:
    images, classes = features(2, 1), features(10, 2)
    groups = torch.tensor([0, 1, 2, 0, 3, 4, 0, 5, 6, 7])  # classes 0, 3 and 6 share a name
    labels, drawn = torch.tensor([3, 5]), torch.tensor([0, 6, 1, 2, 9])
    logits = sampled_logits(images, classes, labels, drawn, correction="ln", name_groups=groups)
    plain = sampled_logits(images, classes, labels, drawn, correction=None)
    assert torch.isneginf(logits).tolist() == [[False, True, True, False, False, False], [False] * 6]
    assert (logits - plain)[0, 3:].tolist() == pytest.approx([math.log((10 - 3) / (5 - 2))] * 3, abs=1e-6)
    assert (logits - plain)[1, 1:].tolist() == pytest.approx([math.log(9 / 5)] * 5, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_classes=st.integers(2, 12), scale=st.sampled_from([1.0, 14.3, 100.0]))
def test_equals_the_definition(data: st.DataObject, num_classes: int, scale: float) -> None:
    labels = data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=5))
    drawn = data.draw(st.permutations(range(num_classes)))[: data.draw(st.integers(1, num_classes))]
    correction = data.draw(st.sampled_from(["log10", "ln", None, -0.5, 2]))
    groups = data.draw(st.none() | st.lists(st.integers(0, 4), min_size=num_classes, max_size=num_classes))
    images, classes = features(len(labels), 3), features(num_classes, 4)
    logits = sampled_logits(
        images,
        classes,
        torch.tensor(labels),
        torch.tensor(drawn),
        scale,
        correction=correction,
        name_groups=None if groups is None else torch.tensor(groups),
    )
    expected = torch.tensor(by_hand(images, classes, labels, drawn, scale, correction, groups), dtype=torch.float64)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-6)
    loss = F.cross_entropy(logits, torch.zeros(len(labels), dtype=torch.long))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_all_negatives_rejected_gives_no_loss_and_no_gradient(dtype: torch.dtype) -> None:
    images = features(2, 1).to(dtype)
    classes = features(4, 2).to(dtype).requires_grad_()
    logits = sampled_logits(images, classes, torch.tensor([1, 1]), torch.tensor([1]))
    assert logits.dtype == dtype
    assert torch.isneginf(logits[:, 1]).all()
    loss = F.cross_entropy(logits.float(), torch.zeros(2, dtype=torch.long))
    (gradient,) = torch.autograd.grad(loss, classes)
    assert float(loss.detach()) == 0
    assert torch.isfinite(gradient).all()
    assert float(gradient.abs().sum()) == 0


def test_a_rejected_class_gets_no_gradient() -> None:
    images, classes = features(1, 1), features(4, 2)
    negatives = classes[[0, 2, 3]].clone().requires_grad_()
    labels, drawn = torch.tensor([2]), torch.tensor([0, 2, 3])
    logits = local_contrast_logits(images, classes[labels], negatives, labels, drawn, 4, 10.0)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, torch.zeros(1, dtype=torch.long)), negatives)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs().sum(dim=1) > 0).tolist() == [True, False, True]


def test_one_negative_and_large_logits_stay_finite() -> None:
    images, classes = features(1, 1).float(), features(3, 2).float()
    labels = torch.tensor([0])
    classes[1] = images[0]
    classes[0] = -images[0]
    logits = sampled_logits(images, classes, labels, torch.tensor([1]), scale=1e4)
    assert logits.shape == (1, 2)
    loss = F.cross_entropy(logits, torch.zeros(1, dtype=torch.long))
    assert float(loss) == pytest.approx(2e4 + math.log10(2), rel=1e-5)


def test_logit_scale_may_be_a_tensor() -> None:
    images, classes, labels, drawn = features(2, 1), features(5, 2), torch.tensor([0, 1]), torch.tensor([3, 2])
    by_number = sampled_logits(images, classes, labels, drawn, scale=7.0)
    scale = torch.tensor(7.0, dtype=torch.float64)
    torch.testing.assert_close(sampled_logits(images, classes, labels, drawn, scale=scale), by_number)  # type: ignore[arg-type]


@pytest.mark.parametrize("correction", ["log10", "ln"])
def test_drawing_every_class_is_the_full_softmax(correction: str) -> None:
    images, classes, labels = features(6, 1), features(11, 2), torch.tensor([0, 3, 3, 10, 5, 6])
    sampled = sampled_logits(images, classes, labels, torch.randperm(11), correction=correction)
    full = full_softmax_logits(images, classes, labels, 10.0)
    target = torch.zeros(6, dtype=torch.long)
    torch.testing.assert_close(
        F.cross_entropy(sampled, target, reduction="none"), F.cross_entropy(full, labels, reduction="none")
    )


def test_drawing_every_class_with_namesakes_is_the_full_softmax_without_them() -> None:
    images, classes, labels = features(3, 1), features(6, 2), torch.tensor([0, 3, 5])
    groups = torch.tensor([0, 1, 2, 0, 0, 3])
    sampled = sampled_logits(images, classes, labels, torch.arange(6), correction="ln", name_groups=groups)
    full = full_softmax_logits(images, classes, labels, 10.0, groups)
    assert torch.isneginf(full).tolist() == [
        [False, False, False, True, True, False],
        [True, False, False, False, True, False],
        [False] * 6,
    ]
    torch.testing.assert_close(
        F.cross_entropy(sampled, torch.zeros(3, dtype=torch.long), reduction="none"),
        F.cross_entropy(full, labels, reduction="none"),
    )


def test_full_softmax_logits_are_scaled_cosines() -> None:
    images, classes = features(2, 1), features(3, 2)
    logits = full_softmax_logits(images, classes, torch.tensor([0, 1]), 4.0)
    expected = [[4 * float(image @ row) for row in classes] for image in images]
    torch.testing.assert_close(logits, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("groups", [None, [0, 1, 2, 1, 3, 4, 1]])
def test_ln_correction_is_unbiased_over_all_uniform_samples(groups: list[int] | None) -> None:
    """Every sample of three out of seven classes, each as likely as the others."""
    images, classes, labels = features(1, 1), features(7, 2), torch.tensor([3])
    name_groups = None if groups is None else torch.tensor(groups)
    sums: dict[str, list[float]] = {"ln": [], "log10": []}
    for drawn in itertools.combinations(range(7), 3 if groups is None else 4):
        for correction, values in sums.items():
            logits = sampled_logits(
                images, classes, labels, torch.tensor(drawn), correction=correction, name_groups=name_groups
            )
            values.append(float(logits[0, 1:].exp().sum()))
    full = full_softmax_logits(images, classes, labels, 10.0, name_groups)[0]
    expected = float(full.exp().sum() - full[3].exp())
    assert np.mean(sums["ln"]) == pytest.approx(expected, rel=1e-6)
    assert np.mean(sums["log10"]) < 0.9 * expected


def _samplers() -> dict[str, ClassSampler]:
    hard = HardSampler(7, temperature=0.5, share=0.3)
    hard.update(features(7, 2))
    return {
        "uniform": UniformSampler(7),
        "weighted": WeightedSampler(torch.tensor([1.0, 2, 3, 1, 5, 8, 1]) * 1e20),
        "hard": hard,
    }


@pytest.mark.parametrize("kind", ["uniform", "weighted", "hard"])
def test_sampled_partition_function_is_unbiased(kind: str) -> None:
    """Monte Carlo with the samplers themselves: the mean over draws of the sampled sum is the full sum."""
    sampler = _samplers()[kind]
    images, classes, labels = features(1, 1), features(7, 2), torch.tensor([3])
    generator = torch.Generator().manual_seed(0)
    sums = []
    for _ in range(4000):
        drawn, log_inclusion = sampler(3, generator, images)
        logits = sampled_logits(images, classes, labels, drawn, scale=2.0, correction="ln", log_inclusion=log_inclusion)
        sums.append(float(logits[0, 1:].exp().sum()))
    full = full_softmax_logits(images, classes, labels, 2.0)[0]
    expected = float(full.exp().sum() - full[3].exp())
    error = np.std(sums) / math.sqrt(len(sums))
    assert error < 0.02 * expected, "the tolerance would hide a bias"
    assert abs(np.mean(sums) - expected) < 4 * error


def test_inclusion_probabilities_replace_the_margin() -> None:
    images, classes, labels, drawn = features(1, 1), features(5, 2), torch.tensor([0]), torch.tensor([1, 2, 0])
    log_inclusion = torch.tensor([0.5, 0.25, 0.1], dtype=torch.float64).log()
    plain = sampled_logits(images, classes, labels, drawn, correction=None, log_inclusion=log_inclusion)
    torch.testing.assert_close(plain, sampled_logits(images, classes, labels, drawn, correction=None))
    for correction, unit in (("ln", 1.0), ("log10", math.log(10))):
        logits = sampled_logits(images, classes, labels, drawn, correction=correction, log_inclusion=log_inclusion)
        shift = (logits - plain)[0]
        assert shift[:3].tolist() == pytest.approx([0, math.log(2) / unit, math.log(4) / unit])
        assert torch.isneginf(logits[0, 3])
    fixed = sampled_logits(images, classes, labels, drawn, correction=0.5, log_inclusion=log_inclusion)
    assert (fixed - plain)[0, :3].tolist() == pytest.approx([0, 0.5, 0.5])


def test_tensors_that_do_not_go_together_are_refused() -> None:
    images, classes, labels, drawn = features(1, 1), features(5, 2), torch.tensor([0]), torch.tensor([1, 2])
    with pytest.raises(UserError, match="3 negative features for 2 negative ids"):
        local_contrast_logits(images, classes[:1], classes[:3], labels, drawn, 5, 1.0)
    with pytest.raises(UserError, match="1 inclusion probabilities for 2 negative ids"):
        sampled_logits(images, classes, labels, drawn, log_inclusion=torch.zeros(1))
    with pytest.raises(UserError, match="9 name groups for 5 classes"):
        sampled_logits(images, classes, labels, drawn, name_groups=torch.arange(9))
