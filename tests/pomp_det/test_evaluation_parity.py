"""The scores of prediction files equal lvis-api's and pycocotools' on real annotations and random detections."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")
pytest.importorskip("hotcoco")
mask_utils = pytest.importorskip("pycocotools.mask")

from pomp_det.evaluation.prediction_files import PredictionWriter, write_manifest  # noqa: E402
from pomp_det.evaluation.scoring import Scores, score_predictions  # noqa: E402

TOLERANCE = 1e-9
Predictions = dict[int, list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _numpy_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """lvis 0.5.3 uses an alias that NumPy 1.24 removed."""
    monkeypatch.setattr(np, "float", float, raising=False)


def image_shape(document: dict[str, Any]) -> dict[int, tuple[int, int]]:
    return {image["id"]: (image["height"], image["width"]) for image in document["images"]}


def as_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    if isinstance(segmentation, list):
        rle = mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = mask_utils.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def random_predictions(document: dict[str, Any], rng: np.random.Generator, masks: bool) -> Predictions:
    """Hits that are a little off, duplicates, wrong classes and noise, in scores full of ties.

    Every ninth image has no detection, every 33rd more than 300.
    """
    shapes = image_shape(document)
    of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    categories = [category["id"] for category in document["categories"]]
    predictions: Predictions = {}
    for number, image in enumerate(document["images"]):
        height, width = shapes[image["id"]]
        truths = of_image[image["id"]]
        likely = [*image.get("neg_category_ids", []), *(t["category_id"] for t in truths)] or categories
        rows: list[dict[str, Any]] = []

        def add(box: Any, category: int, segmentation: Any, rows: list[dict[str, Any]] = rows) -> None:
            row = {"category_id": int(category), "bbox": [float(value) for value in box]}
            row["score"] = float(rng.integers(1, 21)) / 20
            if masks:
                row["segmentation"] = segmentation
            rows.append(row)

        for truth in truths:
            x, y, w, h = truth["bbox"]
            rle = as_rle(truth["segmentation"], height, width) if masks else None
            for _ in range(int(rng.integers(0, 3))):
                jitter = rng.normal(0, 0.06, 4) * (w, h, w, h)
                moved = (x + jitter[0], y + jitter[1], max(1, w + jitter[2]), max(1, h + jitter[3]))
                category = truth["category_id"] if rng.random() < 0.8 else rng.choice(likely)
                add(moved, category, shifted(rle, rng) if masks else None)
        noise = 340 if number % 33 == 5 else 8
        for _ in range(noise):
            w, h = rng.uniform(2, width / 2), rng.uniform(2, height / 2)
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            segmentation = None
            if masks:
                polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
                segmentation = as_rle([polygon], height, width)
            add((x, y, w, h), rng.choice(likely if rng.random() < 0.9 else categories), segmentation)
        order = rng.permutation(len(rows))
        predictions[image["id"]] = [] if number % 9 == 4 else [rows[place] for place in order]
    return predictions


def shifted(rle: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    mask = mask_utils.decode(rle)
    mask = np.roll(mask, tuple(rng.integers(-4, 5, 2)), (0, 1))
    return as_rle(mask_utils.encode(np.asfortranarray(mask)), *mask.shape)


def write_predictions(
    folder: Path, annotations: Path, kind: str, predictions: Predictions, tasks: list[str], **more: Any
) -> None:
    """Two ranks, as a distributed run would write them; the image order is not that of the ids."""
    facts = {"dataset": f"{kind}_set", "kind": kind, "annotations": str(annotations), "ranks": 2, "tasks": tasks}
    write_manifest(folder, {**facts, **more})
    for rank in range(2):
        writer = PredictionWriter(folder, rank)
        for image_id in list(predictions)[::-1][rank::2]:
            writer.write(image_id, predictions[image_id])
        writer.close()


def results_list(predictions: Predictions) -> list[dict[str, Any]]:
    return [
        {"image_id": image_id, **copy.deepcopy(row)} for image_id, rows in sorted(predictions.items()) for row in rows
    ]


def lvis_api(annotations: Path, predictions: Predictions, task: str, max_dets: int = 300) -> Any:
    """lvis-api as Detectron2's evaluator calls it."""
    lvis = pytest.importorskip("lvis")
    results = results_list(predictions)
    if task == "segm":
        for row in results:
            row.pop("bbox")
    truth = lvis.LVIS(str(annotations))
    evaluator = lvis.LVISEval(truth, lvis.LVISResults(truth, results, max_dets=max_dets), task)
    evaluator.run()
    return evaluator


def pycocotools(annotations: Path, predictions: Predictions, task: str) -> Any:
    """pycocotools as Detectron2's evaluator calls it."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = results_list(predictions)
    if task == "segm":
        for row in results:
            row.pop("bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluator = COCOeval(truth, truth.loadRes(results), task)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def check_numbers(scores: Scores, task: str, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        ours = scores.results[task][name]
        if value < 0:
            assert np.isnan(ours), name
        else:
            assert ours == pytest.approx(100 * value, abs=100 * TOLERANCE), name


LVIS_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_lvis_equals_lvis_api_on_real_annotations(shared: Path, tmp_path: Path, task: str) -> None:
    document = json.loads(gzip.decompress((shared / "data/lvis_val_100.json.gz").read_bytes()))
    # Classes that no image knows of cannot be scored; without them lvis-api takes a third of the time.
    known = {annotation["category_id"] for annotation in document["annotations"]}
    known.update(number for image in document["images"] for number in image["neg_category_ids"])
    document["categories"] = [category for category in document["categories"] if category["id"] in known]
    annotations = tmp_path / "lvis.json"
    annotations.write_text(json.dumps(document), encoding="utf-8")
    predictions = random_predictions(document, np.random.default_rng(0), masks=task == "segm")
    assert max(map(len, predictions.values())) > 300
    assert min(map(len, predictions.values())) == 0
    write_predictions(tmp_path / "run", annotations, "lvis", predictions, [task])
    scores = score_predictions(tmp_path / "run")
    expected = lvis_api(annotations, predictions, task)
    assert expected.results["AP"] > 0.05
    assert np.abs(scores.precision[task] - expected.eval["precision"]).max() <= TOLERANCE
    check_numbers(scores, task, {name: expected.results[name] for name in LVIS_NAMES})


@pytest.mark.parametrize(
    ("pack", "file"),
    [
        pytest.param("coco128", "instances_train2017_masks", marks=pytest.mark.slow),
        ("coco128_val", "instances_val2017_masks_poly"),
        pytest.param("coco_more", "instances_train2017", marks=pytest.mark.slow),
        pytest.param("coco_more", "instances_val2017", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_coco_equals_pycocotools_on_real_annotations(
    shared: Path, tmp_path: Path, pack: str, file: str, task: str
) -> None:
    with tarfile.open(shared / f"data/{pack}.tar") as archive:
        member = archive.extractfile(f"{pack}/annotations/{file}.json")
        assert member is not None
        document = json.load(member)
    assert any(annotation["iscrowd"] for annotation in document["annotations"])
    annotations = tmp_path / "coco.json"
    annotations.write_text(json.dumps(document), encoding="utf-8")
    predictions = random_predictions(document, np.random.default_rng(1), masks=task == "segm")
    write_predictions(tmp_path / "run", annotations, "coco", predictions, [task])
    scores = score_predictions(tmp_path / "run")
    expected = pycocotools(annotations, predictions, task)
    assert expected.stats[0] > 0.05
    assert np.abs(scores.precision[task] - expected.eval["precision"][..., -1]).max() <= TOLERANCE
    check_numbers(scores, task, dict(zip(COCO_NAMES, expected.stats, strict=False)))


def small_document(rng: np.random.Generator, images: int = 12) -> dict[str, Any]:
    """Federated annotations of 12 classes with polygon masks, small to large."""
    categories = [
        {"id": 3 * number + 1, "name": f"class {number}", "frequency": "rcf"[number % 3]} for number in range(12)
    ]
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    ids = [category["id"] for category in categories[:-1]]
    for number in range(images):
        present = rng.choice(ids, 3, replace=False)
        absent = [i for i in ids if i not in present]
        document["images"].append(
            {
                "id": 100 - number,
                "width": 200,
                "height": 160,
                "file_name": f"{number}.jpg",
                "neg_category_ids": [int(index) for index in rng.choice(absent, 2, replace=False)],
                "not_exhaustive_category_ids": [int(present[0])],
            }
        )
        for category in [*present, *present[:2]]:
            w, h = rng.uniform(4, 150), rng.uniform(4, 120)
            x, y = rng.uniform(0, 200 - w), rng.uniform(0, 160 - h)
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": 100 - number,
                    "category_id": int(category),
                    "bbox": [x, y, w, h],
                    "area": 0.8 * w * h,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    return document


@pytest.mark.parametrize("fixed_ap", [False, True])
def test_the_reference_backend_scores_the_same_files(tmp_path: Path, fixed_ap: bool) -> None:
    pytest.importorskip("lvis")
    document = small_document(np.random.default_rng(2))
    annotations = tmp_path / "small.json"
    annotations.write_text(json.dumps(document), encoding="utf-8")
    predictions = random_predictions(document, np.random.default_rng(3), masks=True)
    write_predictions(tmp_path / "run", annotations, "lvis", predictions, ["bbox", "segm"])
    fast = score_predictions(tmp_path / "run", fixed_ap=fixed_ap)
    reference = score_predictions(tmp_path / "run", fixed_ap=fixed_ap, backend="reference")
    assert fast.protocol["scorer"].startswith("hotcoco ")
    assert reference.protocol["scorer"].startswith("lvis ")
    for task in ("bbox", "segm"):
        assert np.abs(fast.precision[task] - reference.precision[task]).max() <= TOLERANCE
        expected = lvis_api(annotations, predictions, task, max_dets=-1 if fixed_ap else 300)
        assert np.abs(fast.precision[task] - expected.eval["precision"]).max() <= TOLERANCE


def test_the_reference_backend_scores_coco_without_info_and_iscrowd(tmp_path: Path) -> None:
    document = small_document(np.random.default_rng(4))
    annotations = tmp_path / "small.json"
    annotations.write_text(json.dumps(document), encoding="utf-8")
    predictions = random_predictions(document, np.random.default_rng(5), masks=True)
    write_predictions(tmp_path / "run", annotations, "coco", predictions, ["bbox", "segm"])
    fast = score_predictions(tmp_path / "run")
    reference = score_predictions(tmp_path / "run", backend="reference")
    assert reference.protocol["scorer"].startswith("pycocotools ")
    for task in ("bbox", "segm"):
        assert np.abs(fast.precision[task] - reference.precision[task]).max() <= TOLERANCE


@pytest.mark.parametrize("kind", ["lvis", "coco"])
@pytest.mark.parametrize("backend", ["hotcoco", "reference"])
def test_a_model_that_finds_nothing_scores_zero(tmp_path: Path, kind: str, backend: str) -> None:
    if backend == "reference" and kind == "lvis":
        pytest.importorskip("lvis")
    document = small_document(np.random.default_rng(6))
    annotations = tmp_path / "small.json"
    annotations.write_text(json.dumps(document), encoding="utf-8")
    nothing: Predictions = {image["id"]: [] for image in document["images"]}
    write_predictions(tmp_path / "run", annotations, kind, nothing, ["bbox", "segm"])
    scores = score_predictions(tmp_path / "run", backend=backend)
    assert scores.results["bbox"]["AP"] == 0
    assert scores.results["segm"]["AP50"] == 0
