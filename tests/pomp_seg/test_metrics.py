"""Confusion matrices and metrics, against golden values, hotcoco and Detectron2."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

pytest.importorskip("detectron2")

from pomp_seg.evaluation.metrics import class_scores, confusion_matrix, segmentation_metrics
from prompt_core.errors import UserError
from prompt_core.metrics import harmonic_mean


def random_maps(
    seed: int, classes: int, absent: tuple[int, ...] = (), unpredicted: tuple[int, ...] = (), ignore_label: int = 255
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prediction, truth) pairs; half of the predictions are right where they may be."""
    generator = np.random.default_rng(seed)
    kind = np.uint8 if classes <= 255 else np.uint16
    of_truth = [index for index in range(classes) if index not in absent]
    predictable = [index for index in range(classes) if index not in unpredicted]
    pairs = []
    for _ in range(3):
        truth = generator.choice(of_truth, (23, 31))
        guess = generator.choice(predictable, (23, 31))
        right = (generator.random((23, 31)) < 0.5) & ~np.isin(truth, unpredicted)
        prediction = np.where(right, truth, guess)
        truth[generator.random((23, 31)) < 0.1] = ignore_label
        pairs.append((prediction.astype(kind), truth.astype(kind)))
    return pairs


def total(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int, ignore_label: int = 255) -> np.ndarray:
    return sum(
        (confusion_matrix(prediction, truth, classes, ignore_label) for prediction, truth in pairs),
        np.zeros((classes + 1, classes + 1), np.int64),
    )


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    folder = shared / "golden/metrics"
    return load_file(folder / "cases.safetensors"), json.loads((folder / "settings.json").read_text(encoding="utf-8"))


def test_golden_confusion(golden: tuple[dict[str, np.ndarray], dict[str, Any]]) -> None:
    cases, _ = golden
    matrix = total([(cases[f"image{number}.pred"], cases[f"image{number}.gt"]) for number in range(4)], 12)
    assert (matrix == cases["confusion_pred_rows_gt_columns"]).all()


@pytest.mark.parametrize(
    ("result", "prediction"), [("all_images", "pred"), ("unseen_never_predicted", "pred_without_unseen")]
)
def test_golden_metrics(golden: tuple[dict[str, np.ndarray], dict[str, Any]], result: str, prediction: str) -> None:
    cases, options = golden
    confusion = total([(cases[f"image{number}.{prediction}"], cases[f"image{number}.gt"]) for number in range(4)], 12)
    numbers = segmentation_metrics(confusion, options["evaluation_set"], "union")
    scores = class_scores(confusion)
    for index, name in enumerate(options["class_names"]):
        numbers[f"IoU-{name}"], numbers[f"ACC-{name}"] = 100 * scores.iou[index], 100 * scores.accuracy[index]
    expected = options["results"][result]
    assert set(numbers) - set(expected) == {"mIoU-seen", "mIoU-unseen", "hIoU"}
    assert set(expected) <= set(numbers)
    for name, value in expected.items():
        if value is None:
            assert math.isnan(numbers[name]), name
        else:
            assert numbers[name] == pytest.approx(value, abs=1e-6), name
    assert numbers["mIoU-seen"] == numbers["mIoU-base"]
    assert numbers["mIoU-unseen"] == numbers["mIoU-unbase"]
    assert numbers["hIoU"] == numbers["hIoU-base"]


@pytest.mark.parametrize(
    ("classes", "absent", "unpredicted"),
    [(7, (), ()), (7, (2,), ()), (7, (), (3,)), (12, (1, 4), (0, 4, 5)), (300, (7,), (8,))],
)
def test_equal_to_hotcoco(classes: int, absent: tuple[int, ...], unpredicted: tuple[int, ...]) -> None:
    semantic = pytest.importorskip("hotcoco.semantic")
    for seed in range(5):
        ignore_label = 255 if classes <= 255 else 65535
        pairs = random_maps(seed, classes, absent, unpredicted, ignore_label)
        reference = semantic.SemanticEval(classes, ignore_index=ignore_label)
        for prediction, truth in pairs:
            reference.update(truth, prediction)
        confusion = total(pairs, classes, ignore_label)
        theirs = reference.confusion().astype(np.int64)
        assert (theirs == confusion[:-1, :-1].T).all()  # hotcoco's rows are the ground truth
        report = reference.report()["metrics"]
        # hotcoco counts a class that is predicted but nowhere true as 0, as Detectron2 did.
        ours = segmentation_metrics(confusion, None, "union")
        for metric, other in (("mIoU", "mIoU"), ("fwIoU", "fwIoU"), ("mACC", "mAcc"), ("pACC", "aAcc")):
            assert ours[metric] == pytest.approx(100 * report[other], abs=1e-9), metric


@pytest.mark.parametrize("classes", [9, 300])
def test_equal_to_detectron2(classes: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator

    ignore_label = 255 if classes <= 255 else 65535
    pairs = random_maps(3, classes, absent=(2,), unpredicted=(4,), ignore_label=ignore_label)
    name = f"segmentation_metrics_{classes}"
    records = [{"file_name": f"{number}.jpg", "sem_seg_file_name": str(number)} for number in range(len(pairs))]
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(stuff_classes=[str(index) for index in range(classes)], ignore_label=ignore_label)
    try:
        # Without boundaries: those are 8-bit only.
        evaluator = SemSegEvaluator(
            name, distributed=False, sem_seg_loading_fn=lambda file, dtype: pairs[int(file)][1].astype(dtype)
        )
        evaluator._compute_boundary_iou = False
        evaluator.reset()
        for record, (prediction, _) in zip(records, pairs, strict=True):
            scores = torch.nn.functional.one_hot(torch.from_numpy(prediction.astype(np.int64)), classes)
            evaluator.process([record], [{"sem_seg": scores.permute(2, 0, 1)}])
        theirs = evaluator.evaluate()["sem_seg"]
    finally:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)
    confusion = total(pairs, classes, ignore_label)
    assert (evaluator._conf_matrix == confusion).all()
    ours = segmentation_metrics(confusion)
    for key in ("mIoU", "fwIoU", "mACC", "pACC"):
        assert ours[key] == pytest.approx(theirs[key], abs=1e-9), key


def test_the_two_denominators() -> None:
    truth = np.zeros((2, 4), np.uint8)
    prediction = np.array([[0, 0, 0, 0], [0, 0, 1, 1]], np.uint8)  # class 1 is nowhere true, class 2 occurs nowhere
    confusion = confusion_matrix(prediction, truth, 3)
    assert segmentation_metrics(confusion)["mIoU"] == pytest.approx(75)
    assert segmentation_metrics(confusion, denominator="union")["mIoU"] == pytest.approx(37.5)
    with pytest.raises(UserError, match=r"the denominator of mIoU is 'unoin'; expected .*nearest: 'union'"):
        segmentation_metrics(confusion, denominator="unoin")


def test_nothing_to_measure_is_not_a_number() -> None:
    confusion = confusion_matrix(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8), 3)
    assert all(math.isnan(value) for value in segmentation_metrics(confusion, {"base": [0]}).values())
    assert harmonic_mean(0.0, 0.5) == 0.0
    assert math.isnan(harmonic_mean(float("nan"), 0.5))
    assert harmonic_mean(0.25, 0.75) == pytest.approx(0.375)
    # Without an unseen class in the ground truth there is no harmonic mean.
    confusion = confusion_matrix(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 3)
    numbers = segmentation_metrics(confusion, {"base": [0]})
    assert numbers["mIoU-seen"] == 100
    assert math.isnan(numbers["hIoU"])


def test_wide_labels_keep_their_values() -> None:
    prediction, truth = np.array([[255, 256, 846]], np.uint16), np.array([[255, 0, 65535]], np.uint16)
    confusion = confusion_matrix(prediction, truth, 847, 65535)
    assert confusion.shape == (848, 848)
    assert {(int(row), int(column)) for row, column in zip(*np.nonzero(confusion), strict=True)} == {
        (255, 255),
        (256, 0),
        (846, 847),
    }


def test_wrong_maps_are_refused() -> None:
    good = np.zeros((2, 3), np.uint8)
    with pytest.raises(UserError, match=r"the prediction has size \(3, 2\), its label \(2, 3\)"):
        confusion_matrix(good.T, good, 2)
    with pytest.raises(UserError, match=r"the prediction has the value 2; expected classes 0..1"):
        confusion_matrix(good + 2, good, 2)
    with pytest.raises(UserError, match=r"the prediction has the value 255"):
        confusion_matrix(good + 255, good, 2)
    with pytest.raises(UserError, match=r"the label has the value 7; expected classes 0..1 or 255"):
        confusion_matrix(good, good + 7, 2)
    with pytest.raises(UserError, match=r"the label has the value -1"):
        confusion_matrix(good, good.astype(np.int64) - 1, 2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 40))
def test_matrices_add_and_count_every_pixel(seed: int, classes: int) -> None:
    pairs = random_maps(seed, classes)
    joined = confusion_matrix(*(np.concatenate(maps) for maps in zip(*pairs, strict=True)), classes)
    assert (joined == total(pairs, classes)).all()
    assert joined.sum() == 3 * 23 * 31
    assert (joined[-1] == 0).all()
    numbers = segmentation_metrics(joined, {"base": list(range(classes // 2 + 1))})
    assert all(math.isnan(value) or 0 <= value <= 100 for value in numbers.values())
    perfect = total([(np.where(truth == 255, 0, truth), truth) for _, truth in pairs], classes)
    assert segmentation_metrics(perfect)["mIoU"] == pytest.approx(100)
