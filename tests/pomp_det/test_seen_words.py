"""Words scored by what a detection network knows, and by CLIP: the formula word by word, and the kept columns."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("detectron2")

from hypothesis import given, settings
from hypothesis import strategies as st

import pomp_det.heads.seen_words
from pomp_det.heads.inference import StageScores, fast_detections, mixed_scores, reference_detections
from pomp_det.heads.seen_words import Closeness, SeenWordsClassifier, seen_evidence, seen_shares
from prompt_core import UserError

WIDTH, SEEN, NAMES = 8, 3, 5
CLOSENESS = Closeness(0.75, 0.85, 30.0)
SIZE = (100, 120)


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def words_near(names: Tensor, cosines: list[float], seed: int = 5) -> Tensor:
    """Unit-norm words, the i-th at that cosine to the i-th name."""
    rows = []
    for number, (cosine, noise) in enumerate(zip(cosines, unit(len(cosines), names.shape[1], seed=seed), strict=True)):
        name = names[number % len(names)]
        across = F.normalize(noise - (noise @ name) * name, dim=0)
        rows.append(cosine * name + math.sqrt(1 - cosine**2) * across)
    return torch.stack(rows)


def make(words: Tensor, names: Tensor | None = None, bias: float = -8.0) -> SeenWordsClassifier:
    """In double precision, with names of which the first two classes have two each."""
    classifier = SeenWordsClassifier(words, SEEN, NAMES, 30.0, bias, 4.0, CLOSENESS, "a test").double()
    classifier.set_class_matrix(words, "a test")
    with torch.no_grad():
        classifier.seen_words.copy_(unit(NAMES, WIDTH) if names is None else names)
        classifier.seen_classes.copy_(torch.tensor([0, 1, 2, 0, 1]))
    return classifier


def plain_logit(word: Tensor, region: Tensor, classifier: SeenWordsClassifier) -> float:
    """The formula for one word (E,) and one region (E + S,), in Python's numbers."""
    closest = [-1.0] * SEEN
    for name, number in zip(classifier.seen_words, classifier.seen_classes.tolist(), strict=True):
        closest[number] = max(closest[number], float(name @ word))
    whole, none = CLOSENESS.whole, CLOSENESS.none
    part = min(max((max(closest) - none) / (whole - none), 0.0), 1.0)
    weights = [math.exp(CLOSENESS.sharpness * cosine) for cosine in closest]
    known = sum(weight * float(value) for weight, value in zip(weights, region[WIDTH:], strict=True)) / sum(weights)
    embedding = F.normalize(region[:WIDTH], dim=0)
    bias = classifier.unseen_bias
    if classifier.other_names is not None:
        every = [*classifier.zs_weight[:, :-1].T, *classifier.other_names]
        bias = classifier.share_bias - math.log(sum(math.exp(30.0 * float(embedding @ name)) for name in every))
    return (1 - part) * (30.0 * float(embedding @ word) + bias) + part * known


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(
    cosines=st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    logits=st.lists(st.floats(-30, 30), min_size=SEEN, max_size=SEEN),
    others=st.integers(0, 4),
    seed=st.integers(1, 2**31),
)
def test_the_formula_word_by_word(cosines: list[float], logits: list[float], others: int, seed: int) -> None:
    words = words_near(unit(NAMES, WIDTH), cosines, seed)
    classifier = make(words)
    classifier.set_background(unit(others, WIDTH, seed=seed + 1) if others else None)
    evidence = seen_evidence(torch.tensor([logits], dtype=torch.float64))
    region = torch.cat((5 * unit(1, WIDTH, seed=seed), evidence), dim=1)
    found = classifier(region)[0]
    assert found.shape == (len(words) + 1,)
    assert float(found[-1]) == 0  # of the background
    for number, word in enumerate(words):
        expected = plain_logit(word, region[0], classifier)
        assert float(found[number]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_how_words_are_shared() -> None:
    names = torch.eye(NAMES, WIDTH, dtype=torch.float64)
    words = words_near(names, [1.0, 0.8, 0.7, 0.85])  # the fourth is another name of the first class
    part, shares = seen_shares(words, names, torch.tensor([0, 1, 2, 0, 1]), SEEN, CLOSENESS)
    torch.testing.assert_close(part, torch.tensor([1.0, 0.5, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4, dtype=torch.float64))
    assert shares.argmax(dim=1).tolist() == [0, 1, 2, 0]
    assert float(shares[0, 0]) > 0.999


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(logits=st.lists(st.floats(-40, 12), min_size=SEEN, max_size=SEEN))
def test_a_seen_class_scores_what_the_detection_network_gave_it(logits: list[float]) -> None:
    """Under MULT_PROPOSAL_SCORE a score is the geometric mean with the proposal's score, the highest probability."""
    names = torch.eye(NAMES, WIDTH, dtype=torch.float64)
    classifier = make(names[:SEEN], names)
    given_logits = torch.tensor([logits], dtype=torch.float64)
    probability = given_logits.sigmoid()
    region = torch.cat((unit(1, WIDTH), seen_evidence(given_logits)), dim=1)
    found = mixed_scores([classifier(region).sigmoid()], probability.max(dim=1, keepdim=True).values)[0, :SEEN]
    best = int(probability.argmax())
    # Words share a little with the other classes: exp(-30) of them.
    assert float(found[best]) == pytest.approx(float(probability[0, best]), rel=1e-4)
    exact = mixed_scores([seen_evidence(given_logits).sigmoid()], probability.max(dim=1, keepdim=True).values)
    torch.testing.assert_close(exact, probability, rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_evidence_is_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[-200.0, 0.0, 200.0], [-200.0, -200.0, -200.0], [200.0, 200.0, 200.0]], dtype=dtype)
    assert torch.isfinite(seen_evidence(logits)).all()
    assert seen_evidence(logits[:0]).shape == (0, 3)


def test_words_not_seen_are_clips_cosine() -> None:
    names = torch.eye(NAMES, WIDTH, dtype=torch.float64)
    unseen = torch.eye(WIDTH, dtype=torch.float64)[NAMES:]
    classifier = make(unseen, names)
    regions = torch.randn(6, WIDTH + SEEN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cosine = F.normalize(regions[:, :WIDTH], dim=1) @ unseen.T
    torch.testing.assert_close(classifier(regions)[:, :-1], 30 * cosine - 8)
    changed = regions.clone()
    changed[:, WIDTH:] += 100
    assert torch.equal(classifier(changed), classifier(regions))


def test_other_words_and_fewer_classes() -> None:
    classifier = make(words_near(unit(NAMES, WIDTH), [1.0, 0.8, 0.2, 0.9]))
    regions = torch.randn(6, WIDTH + SEEN, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    every = classifier(regions)
    few = torch.tensor([2, 0])
    torch.testing.assert_close(classifier(regions, classes=few), torch.cat((every[:, few], every[:, -1:]), dim=1))
    rows = 7 * classifier.zs_weight[:, :-1].T
    torch.testing.assert_close(classifier(regions, classifier=rows), every[:, :-1])
    torch.testing.assert_close(classifier.embed(regions), F.normalize(regions[:, :WIDTH], dim=1))


def test_columns_are_kept_until_something_changes() -> None:
    words, others = words_near(unit(NAMES, WIDTH), [0.9, 0.2]), words_near(unit(NAMES, WIDTH), [0.1, 0.95, 0.7], 9)
    classifier = make(words)
    columns = classifier.columns()
    assert classifier.columns() is columns
    classifier.set_class_matrix(others, "other words")
    swapped = classifier.columns()
    torch.testing.assert_close(swapped, make(others).columns())
    assert swapped.shape == (WIDTH + SEEN + 1, 4)

    before = classifier.columns()
    trained = make(others, unit(NAMES, WIDTH, seed=3))
    classifier.load_state_dict(trained.state_dict())
    torch.testing.assert_close(classifier.columns(), trained.columns())
    assert not torch.allclose(classifier.columns(), before)

    classifier.load_state_dict(make(others).state_dict())
    torch.testing.assert_close(classifier.columns(), before)
    classifier.seen_classes.copy_(torch.tensor([1, 2, 0, 1, 2]))
    assert not torch.allclose(classifier.columns(), before)
    single = classifier.float().columns()
    assert single.dtype == torch.float32
    twin = copy.deepcopy(classifier)
    twin.set_class_matrix(words, "the first words")
    assert torch.equal(classifier.columns(), single)


def test_columns_kept_in_inference_mode_serve_a_training() -> None:
    classifier = make(unit(4, WIDTH))
    with torch.inference_mode():
        classifier.set_class_matrix(unit(5, WIDTH, seed=1), "words of a prediction")
        first = classifier.columns()
        assert classifier.columns() is first
    regions = torch.cat((unit(6, WIDTH), torch.zeros(6, SEEN, dtype=torch.float64)), dim=1)
    classifier(regions).sum().backward()
    assert classifier.linear.weight.grad is not None


@torch.no_grad()
@pytest.mark.parametrize(("threshold", "limit", "chunk"), [(0.02, 30, 7), (0.3, 300, 100), (0.0, -1, 8)])
def test_fast_inference_is_the_reference(threshold: float, limit: int, chunk: int) -> None:
    """With words that are seen, half seen and not seen, and negative logits for all that is not there."""
    names = unit(NAMES, WIDTH)
    cosines = [0.99, 0.8, 0.77, 0.5] * 10
    classifier = make(words_near(names, cosines), names)
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(50, SEEN, generator=generator, dtype=torch.float64) - 2
    regions = torch.cat((unit(50, WIDTH, seed=8), seen_evidence(logits)), dim=1)
    objectness = logits.sigmoid().max(dim=1).values
    corner = 80 * torch.rand(50, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat((corner, corner + 10 + 30 * torch.rand(50, 2, generator=generator, dtype=torch.float64)), dim=1)
    options: tuple[Any, ...] = (threshold, 0.5, limit)
    stages = [StageScores(classifier.project(regions), classifier.columns(), classifier.cls_bias)]
    fast, fast_rows = fast_detections(stages, objectness, boxes, SIZE, *options, chunk=chunk)
    scores = mixed_scores([classifier(regions).sigmoid()], objectness[:, None])
    expected, rows = reference_detections(scores, boxes, SIZE, *options)
    assert len(fast) == len(expected) > 0
    assert fast_rows.tolist() == rows.tolist()
    assert fast.pred_classes.tolist() == expected.pred_classes.tolist()
    torch.testing.assert_close(fast.scores, expected.scores, rtol=1e-12, atol=0)


def test_words_of_another_width() -> None:
    with pytest.raises(UserError, match=r"the detector needs \(classes, 8\)"):
        make(unit(2, WIDTH)).set_class_matrix(unit(2, WIDTH + 1), "other features")


@torch.no_grad()
def test_a_learned_prompt_does_not_change_which_class_a_word_is() -> None:
    """It moves the word away from the names; compared by its untuned text, it is scored as it was."""
    names = unit(NAMES, WIDTH)
    untuned, learned = words_near(names, [1.0, 0.8]), words_near(names, [0.3, 0.3], seed=7)
    features = torch.cat((unit(7, WIDTH, seed=3), unit(7, SEEN, seed=4)), dim=1)
    before = make(untuned)(features)
    classifier = make(learned)
    assert (classifier(features)[:, 0] - before[:, 0]).abs().max() > 1
    classifier.set_untuned(untuned)
    after = classifier(features)
    torch.testing.assert_close(after[:, 0], before[:, 0])  # wholly seen
    text = 0.5 * 30 * features[:, :WIDTH] @ (learned[1] - untuned[1])  # half seen: the other half is by the prompt
    torch.testing.assert_close(after[:, 1] - before[:, 1], text)
    classifier.set_class_matrix(untuned, "other words")
    torch.testing.assert_close(classifier(features), before)


@torch.no_grad()
def test_words_that_are_all_seen_need_no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    names = unit(NAMES, WIDTH)
    features = torch.cat((unit(7, WIDTH, seed=3), unit(7, SEEN, seed=4)), dim=1)
    totals: list[int] = []
    total = pomp_det.heads.seen_words.background_total
    monkeypatch.setattr(pomp_det.heads.seen_words, "background_total", lambda *given: totals.append(1) or total(*given))
    for cosines, looks in (([1.0, 0.9], 0), ([1.0, 0.8], 2)):
        words = words_near(names, cosines)
        classifier = make(words)
        classifier.set_background(unit(4, WIDTH, seed=9))
        totals.clear()
        found = classifier(features)
        assert len(totals) == looks
        for row, word in enumerate(words):
            for region in range(len(features)):
                expected = plain_logit(word, features[region], classifier)
                assert float(found[region, row]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        # The same words without a background take its place for words that are given in passing.
        other = words_near(names, [0.1])
        passing = classifier(features, classifier=other)
        assert float(passing[0, 0]) != pytest.approx(30.0 * float(features[0, :WIDTH] @ other[0]), abs=1e-6)
