"""Own shares of regions: the plain softmax, the same in the fast detections, and nothing where they are off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2")

from pomp_det import build_detector, load_config, set_classifier
from pomp_det.classifier import temporary_classes
from pomp_det.heads.inference import StageScores, fast_detections, mixed_scores, reference_detections
from pomp_det.heads.region_shares import RegionShares
from pomp_det.oracle import restricted_scores
from prompt_core import TextClassifier, UserError
from prompt_core.background.background import Background

from ..support.detector import TINY

SIZE = (100, 120)


def unit(rows: int, seed: int, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


def shares_of(regions: int, classes: int, others: int = 25, seed: int = 0) -> RegionShares:
    return RegionShares.of(unit(regions, seed), unit(classes, 50).T, unit(others, 60), 9.0)


def test_shares_are_the_softmax_over_classes_and_background() -> None:
    shares = shares_of(6, 4)
    everything = 9 * unit(6, 0) @ torch.cat((unit(4, 50), unit(25, 60))).T
    expected = everything.softmax(dim=1)[:, :4]
    torch.testing.assert_close(shares.table(), expected, rtol=1e-12, atol=0)
    regions, classes = torch.tensor([5, 0, 5]), torch.tensor([3, 1, 0])
    torch.testing.assert_close(shares.of_pairs(regions, classes), expected[regions, classes], rtol=1e-12, atol=0)
    assert shares.of_pairs(regions[:0], classes[:0]).shape == (0,)
    torch.testing.assert_close(shares.rows(regions).table(), expected[regions])
    torch.testing.assert_close(shares.of_classes(classes).table(), expected[:, classes])
    first, second = shares.split([2, 4])
    torch.testing.assert_close(torch.cat((first.table(), second.table())), expected)


def stages_with_shares(regions: int, classes: int, count: int) -> list[StageScores]:
    weight = torch.cat((unit(classes, 50), torch.zeros(1, 8, dtype=torch.float64))).T
    return [
        StageScores(6 * unit(regions, seed), weight, torch.tensor([0.5]), shares_of(regions, classes, seed=seed))
        for seed in range(count)
    ]


@pytest.mark.parametrize(
    ("threshold", "limit", "chunk", "count"),
    [(0.02, 30, 7, 3), (0.1, 300, 100, 1), (0.0, -1, 8, 3), (-1.0, -1, 8, 1), (0.02, 10, 16, 3), (0.02, 3, 5, 1)],
)
@pytest.mark.parametrize("mixed", [True, False])
def test_fast_detections_are_the_plain_ones(threshold: float, limit: int, chunk: int, count: int, mixed: bool) -> None:
    stages = stages_with_shares(50, 90, count)
    generator = torch.Generator().manual_seed(3)
    centre = 100 * torch.rand(50, 2, generator=generator, dtype=torch.float64)
    half = 5 + 25 * torch.rand(50, 2, generator=generator, dtype=torch.float64)
    boxes, objectness = torch.cat((centre - half, centre + half), dim=1), torch.rand(50, generator=generator).double()
    given, column = (objectness, objectness[:, None]) if mixed else (None, None)
    ones = torch.ones(50, 1, dtype=torch.float64)
    tables = [
        stage.logits().sigmoid() * torch.cat((stage.shares.table(), ones), dim=1)
        for stage in stages
        if stage.shares is not None
    ]
    scores = mixed_scores(tables, column)
    expected, expected_rows = reference_detections(scores, boxes, SIZE, threshold, 0.5, limit)
    found, rows = fast_detections(stages, given, boxes, SIZE, threshold, 0.5, limit, chunk=chunk)
    assert len(expected) > 0
    assert rows.tolist() == expected_rows.tolist()
    assert found.pred_classes.tolist() == expected.pred_classes.tolist()
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-11, atol=0)


def test_fewer_classes_keep_their_shares() -> None:
    (stage,) = stages_with_shares(5, 6, 1)
    assert stage.shares is not None
    few = restricted_scores(stage, torch.tensor([4, 2]))
    assert isinstance(few, StageScores)
    assert few.shares is not None
    torch.testing.assert_close(few.shares.table(), stage.shares.table()[:, [4, 2]])


def words(count: int = 5, background: int = 40) -> TextClassifier:
    rows = unit(count + background, 9, 24).float()
    names = [f"other {row}" for row in range(background)]
    return TextClassifier(rows[:count], list("abcde"), background=Background(rows[count:], names, 30.0))


def detect(model: Any, photo: torch.Tensor) -> Any:
    with torch.no_grad():
        return model([{"image": photo}])[0]["instances"]


@pytest.mark.parametrize("loss", [{}, {"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False}])
def test_detectors_fast_and_plain(make_tiny: Callable[..., Any], photo: torch.Tensor, loss: dict[str, Any]) -> None:
    low = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0} | loss
    fast = make_tiny(low).eval()
    plain = make_tiny(low | {"MODEL.ROI_BOX_HEAD.FAST_INFERENCE": False}).eval()
    without = TextClassifier(words().weight, words().names)
    states = {name: tensor.clone() for name, tensor in fast.state_dict().items()}
    set_classifier(fast, without)
    before = detect(fast, photo)
    with temporary_classes(fast, words()):
        assert fast.state_dict().keys() == states.keys()
        with_shares = detect(fast, photo)
    set_classifier(plain, words())
    expected = detect(plain, photo)
    assert len(with_shares) == len(expected) > 0
    torch.testing.assert_close(with_shares.scores, expected.scores, rtol=1e-4, atol=1e-6)
    assert with_shares.pred_classes.tolist() == expected.pred_classes.tolist()
    assert float(with_shares.scores.max()) < float(before.scores.max())
    torch.testing.assert_close(detect(fast, photo).scores, before.scores)  # all is as it was


def test_a_configured_background(caplog: pytest.LogCaptureFixture) -> None:
    settings = TINY | {"MODEL.DEVICE": "cpu", "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 116}
    named = settings | {"MODEL.VOCABULARY": "cat,dog", "MODEL.PROMPT": "a {}.", "MODEL.CLIP.NAME": "mini"}
    background = {"MODEL.ROI_BOX_HEAD.BACKGROUND": "violin,banana,tabby"}
    model: Any = build_detector(load_config(None, named | background))
    for predictor in model.roi_heads.box_predictor:
        assert predictor.cls_score.other_names.shape == (2, 116), "a tabby is a cat"
    plain: Any = build_detector(load_config(None, settings | background))
    assert plain.roi_heads.box_predictor[0].cls_score.other_names is None
    assert "a random class matrix has no background" in caplog.text
    swapped = {"MODEL.RESET_CLS_TESTS": True, "MODEL.TEST_CLASSIFIERS": ["a.npy"], "MODEL.TEST_NUM_CLASSES": [2]}
    with pytest.raises(UserError, match="RESET_CLS_TESTS take other classes"):
        build_detector(load_config(None, named | background | swapped))
