"""Known ways in which two evaluators of the same detections disagree, one test each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")
pytest.importorskip("hotcoco")
pytest.importorskip("pycocotools")

from pomp_det.data.catalog import dataset_entry
from pomp_det.data.class_splits import COCO_SEEN, COCO_UNSEEN, category_ids
from pomp_det.evaluation.metrics import (
    IOU_THRESHOLDS,
    average_precision,
    class_average_precision,
    detection_metrics,
)
from pomp_det.evaluation.prediction_files import PredictionWriter, write_manifest
from pomp_det.evaluation.protocol import Protocol, top_of_class, top_of_image
from pomp_det.evaluation.scoring import score_predictions
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

BOX = [10.0, 10.0, 20.0, 20.0]
SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]


def rle(polygon: list[float]) -> dict[str, Any]:
    import pycocotools.mask as mask_utils

    encoded = mask_utils.frPyObjects([polygon], 100, 100)[0]
    return {"size": [100, 100], "counts": encoded["counts"].decode()}


def annotation(number: int, image: int, category: int, **more: Any) -> dict[str, Any]:
    values = {"id": number, "image_id": image, "category_id": category, "bbox": BOX, "area": 400.0, "iscrowd": 0}
    return {**values, "segmentation": [SQUARE], **more}


def image(number: int, negative: tuple[int, ...] = ()) -> dict[str, Any]:
    lists = {"neg_category_ids": list(negative), "not_exhaustive_category_ids": []}
    return {"id": number, "width": 100, "height": 100, "file_name": f"{number}.jpg", **lists}


def categories(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"class {number}", "frequency": "rcf"[number % 3]} for number in range(1, count + 1)]


def detection(category: int, score: float, box: list[float] | None = None, **more: Any) -> dict[str, Any]:
    return {"category_id": category, "bbox": box or BOX, "score": score, **more}


def prepare(
    tmp_path: Path,
    document: dict[str, Any],
    predictions: dict[int, list[dict[str, Any]]],
    kind: str = "lvis",
    tasks: tuple[str, ...] = ("bbox",),
    **facts: Any,
) -> Path:
    tmp_path.mkdir(exist_ok=True)
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps(document), encoding="utf-8")
    folder = tmp_path / "run"
    values = {"dataset": "some_set", "kind": kind, "annotations": str(annotations), "ranks": 1, "tasks": list(tasks)}
    write_manifest(folder, values | facts)
    writer = PredictionWriter(folder, 0)
    for image_id, rows in predictions.items():
        writer.write(image_id, rows)
    writer.close()
    return folder


def crowded(tmp_path: Path, kind: str) -> Path:
    """300 detections of a class that is absent score higher than the one of the class that is there."""
    document = {"images": [image(1, negative=(1,))], "annotations": [annotation(1, 1, 2)], "categories": categories(2)}
    noise = [detection(1, 0.9, [50.0, 50.0, 5.0, 5.0]) for _ in range(300)]
    return prepare(tmp_path, document, {1: [*noise, detection(2, 0.1)]}, kind)


def test_the_cap_of_an_image_is_over_all_classes_and_before_matching(tmp_path: Path) -> None:
    folder = crowded(tmp_path, "lvis")
    assert score_predictions(folder).results["bbox"]["AP"] == 0
    assert score_predictions(folder, detections=301).results["bbox"]["AP"] == pytest.approx(100)


def test_fixed_ap_has_no_cap_for_an_image(tmp_path: Path) -> None:
    scores = score_predictions(crowded(tmp_path, "lvis"), fixed_ap=True)
    assert scores.results["bbox"]["AP"] == pytest.approx(100)
    assert scores.protocol["metric"] == "LVIS Fixed AP"
    assert "10,000 of each class" in scores.protocol["detections"]


def test_the_cap_of_coco_counts_each_class_alone(tmp_path: Path) -> None:
    scores = score_predictions(crowded(tmp_path, "coco"))
    assert scores.results["bbox"]["AP"] == pytest.approx(100)
    assert scores.protocol["detections"] == "100 of an image and class"


def test_the_cap_keeps_the_order_of_ties_and_of_short_lists() -> None:
    rows = [{"score": score, "place": place} for place, score in enumerate([0.5, 0.9, 0.5, 0.9])]
    assert [row["place"] for row in top_of_image(rows, 3)] == [1, 3, 0]
    assert top_of_image(rows, 4) == rows


def test_fixed_ap_keeps_the_best_of_each_class_and_the_first_of_ties() -> None:
    chosen = top_of_class(np.array([7, 7, 3, 7, 3]), np.array([0.2, 0.5, 0.1, 0.5, 0.1]), limit=1)
    assert chosen.tolist() == [False, True, True, False, False]
    rng = np.random.default_rng(0)
    classes, scores = rng.integers(0, 5, 400), rng.integers(0, 10, 400) / 10
    chosen = top_of_class(classes, scores, limit=20)
    for class_id in range(5):
        places = np.flatnonzero(classes == class_id)
        best = sorted(places, key=lambda place: -scores[place])[:20]
        assert set(np.flatnonzero(chosen & (classes == class_id))) == set(best)
    assert top_of_class(np.zeros(0, dtype=int), np.zeros(0)).size == 0


def test_fixed_ap_cuts_a_class_over_the_whole_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pomp_det.evaluation.scoring.top_of_class", lambda c, s: top_of_class(c, s, limit=2))
    document = {
        "images": [image(1, negative=(1,)), image(2)],
        "annotations": [annotation(1, 2, 1)],
        "categories": categories(1),
    }
    wrong = [detection(1, 0.9), detection(1, 0.8)]
    folder = prepare(tmp_path, document, {1: wrong, 2: [detection(1, 0.7)]})
    assert score_predictions(folder, fixed_ap=True).results["bbox"]["AP"] == 0
    assert score_predictions(folder).results["bbox"]["AP"] == pytest.approx(100 / 3)


def test_fixed_ap_warns_when_the_model_has_cut_already(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = {"images": [image(1)], "annotations": [annotation(1, 1, 1)], "categories": categories(1)}
    folder = prepare(tmp_path, document, {1: [detection(1, 0.5)]}, detections_per_image=300)
    score_predictions(folder, fixed_ap=True)
    assert "already cut to 300" in caplog.text


def test_the_box_does_not_decide_the_size_of_a_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide box around a small wrong mask: by the box the detection is large, by the mask a small false positive."""
    lvis = pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)
    document = {"images": [image(1)], "annotations": [annotation(1, 1, 1)], "categories": categories(1)}
    small = rle([60.0, 60.0, 70.0, 60.0, 70.0, 70.0, 60.0, 70.0])
    wrong = detection(1, 0.9, [0.0, 0.0, 100.0, 100.0], segmentation=small)
    right = detection(1, 0.5, segmentation=rle(SQUARE))
    folder = prepare(tmp_path, document, {1: [wrong, right]}, tasks=("segm",))
    scores = score_predictions(folder)

    def lvis_api(keep_box: bool) -> float:
        rows = [{"image_id": 1, **row} for row in (wrong, right)]
        results = [row if keep_box else {key: row[key] for key in row if key != "bbox"} for row in rows]
        truth = lvis.LVIS(str(tmp_path / "annotations.json"))
        evaluator = lvis.LVISEval(truth, lvis.LVISResults(truth, results), "segm")
        evaluator.run()
        return 100 * float(evaluator.results["APs"])

    assert lvis_api(keep_box=True) == pytest.approx(100)
    assert scores.results["segm"]["APs"] == pytest.approx(lvis_api(keep_box=False)) == pytest.approx(50)
    assert "boxes are removed" in scores.protocol["area_source"]["mask"]


def test_classes_without_ground_truth_are_left_out_of_every_mean(tmp_path: Path) -> None:
    document = {
        "images": [image(1), image(2, negative=(3,))],
        "annotations": [annotation(1, 1, 1)],
        "categories": categories(3),
    }
    folder = prepare(tmp_path, document, {1: [detection(1, 0.9)], 2: [detection(3, 0.9)]})
    scores = score_predictions(folder)
    assert scores.precision["bbox"][0, 0, :, 0].tolist() == [pytest.approx(1), -1, -1]
    assert scores.results["bbox"]["AP"] == pytest.approx(100)
    assert np.isnan(scores.results["bbox"]["APr"])
    written = json.loads((folder / "metrics.json").read_text())
    assert written["some_set/box_AP"] == pytest.approx(100)
    assert "some_set/box_APr" not in written
    rows = json.loads((folder / "per_class.json").read_text())["classes"]
    assert [row["box_AP"] for row in rows] == [pytest.approx(100), None, None]


def test_means_skip_the_sentinel_and_are_undefined_without_classes() -> None:
    precision = np.full((10, 101, 3, 4), -1.0)
    precision[:, :, 0] = 0.25
    precision[0, :, 1, 0] = 0.75
    assert average_precision(precision) == pytest.approx((0.25 * 10 + 0.75) / 11)
    assert average_precision(precision, iou=0.5) == pytest.approx(0.5)
    assert np.isnan(average_precision(precision, classes=[2]))
    assert np.isnan(average_precision(precision, classes=[]))
    np.testing.assert_allclose(class_average_precision(precision), [25, 75, np.nan])
    values = detection_metrics(precision, {"r": [0], "f": [2]}, {"seen": [0, 2], "unseen": [1]})
    assert values["APr"] == pytest.approx(25)
    assert np.isnan(values["APf"])
    assert values["AP50-seen"] == pytest.approx(25)
    assert values["AP50-unseen"] == pytest.approx(75)


def test_thresholds_are_those_of_linspace() -> None:
    assert np.array_equal(IOU_THRESHOLDS, np.linspace(0.5, 0.95, 10))
    assert not np.array_equal(IOU_THRESHOLDS, np.arange(0.5, 1.0, 0.05))


def test_open_vocabulary_coco_averages_the_annotated_classes_of_48_and_17(tmp_path: Path) -> None:
    vocabulary = Vocabulary.load("coco")
    assert vocabulary.ids is not None
    seen, unseen = category_ids(COCO_SEEN, vocabulary), category_ids(COCO_UNSEEN, vocabulary)
    assert (len(seen), len(unseen)) == (48, 17)
    assert not set(seen) & set(unseen)
    entry = dataset_entry("coco_generalized_zeroshot_val")
    assert entry.class_groups == ("seen", "unseen")
    assert entry.image_count == 4_836
    names = [{"id": number, "name": name} for number, name in zip(vocabulary.ids, vocabulary.names, strict=True)]
    detected, missed, other = seen[:2], unseen[:1], next(i for i in vocabulary.ids if i not in {*seen, *unseen})
    truths = [annotation(place, 1, category) for place, category in enumerate([*detected, *missed], start=1)]
    document = {"images": [image(1)], "annotations": truths, "categories": names}
    # A class that nobody annotated may be predicted; it drops out of the mean.
    rows = [detection(category, 0.9) for category in [*detected, int(other)]]
    folder = prepare(tmp_path, document, {1: rows}, "coco", class_groups={"seen": seen, "unseen": unseen})
    values = score_predictions(folder).results["bbox"]
    assert values["AP50-seen"] == pytest.approx(100)
    assert values["AP50-unseen"] == 0
    assert values["AP50"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("backend", ["hotcoco", "reference"])
def test_masks_without_ground_truth_are_scored_or_skipped(tmp_path: Path, backend: str) -> None:
    truth = annotation(1, 1, 1)
    del truth["segmentation"]
    document = {"images": [image(1)], "annotations": [truth], "categories": categories(1)}
    rows = {1: [detection(1, 0.9, segmentation=rle(SQUARE))]}
    folder = prepare(tmp_path, document, rows, "coco", ("bbox", "segm"))
    published = score_predictions(folder, backend=backend)
    assert published.results["bbox"]["AP"] == pytest.approx(100)
    assert published.results["segm"]["AP"] == 0
    assert published.protocol["masks_without_ground_truth"] == "evaluate"
    assert published.protocol["annotations_without_mask"] == 1
    mended = score_predictions(folder, backend=backend, masks_without_ground_truth="skip")
    assert set(mended.results) == {"bbox"}
    assert mended.protocol["masks_without_ground_truth"] == "skip"


def test_unknown_classes_of_an_image_are_not_scored(tmp_path: Path) -> None:
    """Federated: a detection of a class that nobody looked for in this image is neither right nor wrong."""
    document = {
        "images": [image(1), image(2), image(3, negative=(1,))],
        "annotations": [annotation(1, 1, 1)],
        "categories": categories(1),
    }
    unknown = {1: [detection(1, 0.5)], 2: [detection(1, 0.9)], 3: []}
    assert score_predictions(prepare(tmp_path / "a", document, unknown)).results["bbox"]["AP"] == pytest.approx(100)
    negative = {1: [detection(1, 0.5)], 2: [], 3: [detection(1, 0.9)]}
    assert score_predictions(prepare(tmp_path / "b", document, negative)).results["bbox"]["AP"] == pytest.approx(50)


def test_the_split_names_minival_apart_from_val() -> None:
    assert Protocol("lvis_v1_minival", "lvis").describe()["split"] == "lvis_v1_minival"
    assert dataset_entry("lvis_v1_minival").annotations != dataset_entry("lvis_v1_val").annotations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "image_labels"}, "are not scored"),
        ({"kind": "coco", "fixed_ap": True}, "federated"),
        ({"kind": "lvis", "fixed_ap": True, "detections": 300}, "no cap"),
        ({"kind": "coco", "detections": 0}, "at least 1"),
        ({"kind": "coco", "masks_without_ground_truth": "skipp"}, "nearest: 'skip'"),
    ],
)
def test_protocols_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Protocol("a_set", **options)
