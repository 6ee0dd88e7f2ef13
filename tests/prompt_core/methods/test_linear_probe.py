"""The linear probes: a plain layer in the interface of all methods, and scikit-learn's regression with its search."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prompt_core import UniformSampler, UserError
from prompt_core.clip import Clip
from prompt_core.methods.linear_probe import LinearProbe
from prompt_core.methods.logistic_regression import COARSE, LogisticRegression, Search, search_strength
from prompt_core.training.step import LearningSettings, method_step
from prompt_core.vocabulary import Vocabulary


def test_a_step_is_a_plain_layer_with_cross_entropy(make_clip: Callable[..., Clip], vocabulary: Vocabulary) -> None:
    method = LinearProbe(make_clip(torch.float64), names=vocabulary.names).double()
    features, labels = 3 * torch.randn(5, 24, dtype=torch.float64), torch.tensor([0, 1, 3, 5, 4])
    settings = LearningSettings(num_classes=0, reject="id")
    loss, _ = method_step(method, vocabulary, features, labels, settings, UniformSampler(6), torch.Generator())
    expected = F.cross_entropy(F.linear(features, method.layer.weight, method.layer.bias), labels)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(scalar, list(method.parameters())) for scalar in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_other_vocabularies_pick_the_rows_by_name(clip: Clip, vocabulary: Vocabulary) -> None:
    method = LinearProbe(clip, names=vocabulary.names)
    features = torch.randn(2, 24)
    whole = method.logits(features, vocabulary)
    torch.testing.assert_close(whole, method.layer(features))
    logits = method.logits(features, ["old oak", "Cat", "crane"])  # the first of two cranes
    torch.testing.assert_close(logits, whole[:, [2, 0, 3]])
    with pytest.raises(
        UserError, match="learned without the class 'red foxes', it knows its own 6 only; nearest: 'red fox'"
    ):
        method.logits(features, ["cat", "red foxes"])
    with pytest.raises(UserError, match="bound to its classes"):
        LinearProbe(clip)


def test_the_search_closes_in_on_the_best_strength() -> None:
    asked: list[float] = []

    def accuracy(strength: float) -> float:
        asked.append(strength)
        return -abs(math.log10(strength) - 1.3)

    assert math.log10(search_strength(accuracy, 8)) == pytest.approx(1.3, abs=0.05)
    assert tuple(asked[: len(COARSE)]) == COARSE
    assert len(asked) == len(set(asked)), "nothing is fitted twice"
    # Flat accuracies: of equals the first, and the search leans to stronger regularisation.
    assert search_strength(lambda strength: 0.5, 8) == COARSE[0]


def problem(classes: tuple[int, ...], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(6, 24))
    labels = np.array(classes)[np.arange(count) % len(classes)]
    return (centres[labels] + 0.8 * rng.normal(size=(count, 24))).astype(np.float32), labels


@pytest.mark.parametrize("classes", [(0, 2, 3, 5), (1, 4)])  # some without images; two only, which solvers treat apart
def test_regression_predicts_what_scikit_learns_own_does(
    clip: Clip, vocabulary: Vocabulary, classes: tuple[int, ...]
) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    method = LogisticRegression(clip, "logistic_regression", names=vocabulary.names)
    features, labels = problem(classes, 40, 1)
    held_out, right = problem(classes, 16, 2)
    lines: list[str] = []
    method.search = Search(halvings=3)
    fit = method.fit(features, labels, held_out, right, lines.append)
    solver = linear_model.LogisticRegression(C=fit["C"], max_iter=1000).fit(features, labels)
    new, _ = problem(classes, 50, 3)
    with torch.no_grad():
        logits = method.logits(torch.from_numpy(new), vocabulary)
    assert (logits.argmax(dim=1).numpy() == solver.predict(new)).all()
    shares = torch.softmax(logits, dim=1)[:, list(classes)].numpy()
    np.testing.assert_allclose(shares, solver.predict_proba(new), atol=1e-4)
    assert fit["validation_accuracy"] == max(accuracy for _, accuracy in fit["tried"])
    assert [line.split(":")[0] for line in lines] == [f"C {strength:.3g}" for strength, _ in fit["tried"]]


def test_mistakes(clip: Clip, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    method = LogisticRegression(clip, "logistic_regression", names=vocabulary.names)
    features, labels = problem((0, 1), 4, 1)
    nothing: Any = features[:0], labels[:0]
    with pytest.raises(UserError, match="needs images of 2 classes at least, given 1"):
        method.fit(features, np.zeros(4, dtype=int), features, labels)
    with pytest.raises(UserError, match="needs validation images"):
        method.fit(features, labels, *nothing)
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        method.fit(features, labels, features, labels)
