"""Predictions stream to disk, survive as files, and say what is wrong; the evaluator as Detectron2 calls it."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("detectron2")
pytest.importorskip("hotcoco")
mask_utils = pytest.importorskip("pycocotools.mask")

from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402

from pomp_det.data.registration import dataset_vocabulary, register_dataset  # noqa: E402
from pomp_det.evaluation import backends  # noqa: E402
from pomp_det.evaluation.evaluator import DetectionEvaluator  # noqa: E402
from pomp_det.evaluation.prediction_files import (  # noqa: E402
    PredictionIndex,
    PredictionWriter,
    clear_predictions,
    write_manifest,
)
from pomp_det.evaluation.protocol import Protocol  # noqa: E402
from pomp_det.evaluation.scoring import score_predictions  # noqa: E402
from pomp_lab.shapes.generate import build_shapes  # noqa: E402
from pomp_lab.shapes.options import ShapesOptions  # noqa: E402
from prompt_core.errors import UserError  # noqa: E402
from prompt_core.vocabulary import Vocabulary  # noqa: E402

from ..support import hostile  # noqa: E402
from ..support.full_disk import largest_file  # noqa: E402


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "shapes"
    options = ShapesOptions(parts=("scenes",), classes=30, scenes=2, val_scenes=4, scene_size=96)
    build_shapes(folder, options)
    return folder


@pytest.fixture
def registered(scenes: Path) -> Any:
    names = []
    for kind, file in (("coco", "instances_val.json"), ("lvis", "lvis_val.json")):
        root = scenes / ("scenes/val" if kind == "coco" else "scenes")
        name = f"test_{kind}_val"
        register_dataset(name, scenes / "annotations" / file, root, kind)
        names.append(name)
    yield dict(zip(("coco", "lvis"), names, strict=True))
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def truth_as_output(record: dict[str, Any], masks: bool = True, score: float = 0.9) -> dict[str, Any]:
    """What a perfect detector would return for a record."""
    size = (record["height"], record["width"])
    instances = Instances(size)
    boxes = torch.tensor([annotation["bbox"] for annotation in record["annotations"]], dtype=torch.float32).reshape(
        -1, 4
    )
    boxes[:, 2:] += boxes[:, :2]
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.full((len(boxes),), score)
    instances.pred_classes = torch.tensor(
        [annotation["category_id"] for annotation in record["annotations"]], dtype=torch.int64
    )
    if masks:
        pictures = [
            torch.as_tensor(
                mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(annotation["segmentation"], *size)))
            )
            for annotation in record["annotations"]
        ]
        instances.pred_masks = torch.stack(pictures).bool() if pictures else torch.zeros(0, *size, dtype=torch.bool)
    return {"instances": instances}


def run(evaluator: DetectionEvaluator, records: list[dict[str, Any]], **options: Any) -> Any:
    evaluator.reset()
    for record in records:
        evaluator.process([record], [truth_as_output(record, **options)])
    return evaluator.evaluate()


@pytest.mark.parametrize("kind", ["coco", "lvis"])
def test_a_perfect_detector_scores_a_hundred(registered: dict[str, str], tmp_path: Path, kind: str) -> None:
    name = registered[kind]
    records = DatasetCatalog.get(name)
    vocabulary = Vocabulary(list(dataset_vocabulary(name).names))
    evaluator = DetectionEvaluator(name, tmp_path, vocabulary=vocabulary, detections_per_image=300)
    results = run(evaluator, records)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written[f"{name}/box_AP"] == results["bbox"]["AP"]
    assert written[f"{name}/mask_AP50"] == results["segm"]["AP50"]
    assert written["_run"]["versions"]["torch"]
    protocol = written["_protocol"][name]
    assert protocol["vocabulary_sha256"] == vocabulary.sha256
    assert protocol["model_detections_per_image"] == 300
    assert len(protocol["annotations_sha256"]) == 64
    assert protocol["scorer"].startswith("hotcoco")
    detections = json.loads((tmp_path / f"{kind}_instances_results.json").read_text())
    assert len(detections) == sum(len(record["annotations"]) for record in records)
    assert set(detections[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_files_are_scored_again_without_inference(registered: dict[str, str], tmp_path: Path) -> None:
    records = DatasetCatalog.get(registered["lvis"])
    first = run(DetectionEvaluator(registered["lvis"], tmp_path), records)
    (tmp_path / "metrics.json").unlink()
    again = score_predictions(tmp_path)
    assert json.dumps(again.results) == json.dumps(first)
    assert (tmp_path / "metrics.json").is_file()


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_never_another_prediction(registered: dict[str, str], tmp_path: Path, flips: int) -> None:
    run(DetectionEvaluator(registered["coco"], tmp_path), DatasetCatalog.get(registered["coco"]))
    expected, places = list(PredictionIndex(tmp_path)), random.Random(0)
    assert len(expected) == 4
    for path in sorted((tmp_path / "predictions").iterdir()):
        whole = path.read_bytes()
        for _ in range(flips):
            damaged = bytearray(whole)
            damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=path.name):
                list(PredictionIndex(tmp_path))
        path.write_bytes(whole)
    assert list(PredictionIndex(tmp_path)) == expected


def test_category_ids_are_those_of_the_annotations(tmp_path: Path) -> None:
    """COCO's ids have gaps; class indices do not."""
    document = {
        "images": [{"id": 5, "width": 20, "height": 20, "file_name": "5.jpg"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 90, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "5.jpg").touch()
    register_dataset("test_gaps", tmp_path / "a.json", tmp_path)
    records = DatasetCatalog.get("test_gaps")
    assert records[0]["annotations"][0]["category_id"] == 1
    results = run(DetectionEvaluator("test_gaps", tmp_path / "run"), records, masks=False)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert set(results) == {"bbox"}
    wrong = truth_as_output(records[0], masks=False)
    wrong["instances"].pred_classes += 1
    evaluator = DetectionEvaluator("test_gaps", tmp_path / "run")
    evaluator.reset()
    with pytest.raises(UserError, match="predicts class 3 of more than the 2 classes"):
        evaluator.process([records[0]], [wrong])


def test_two_ranks_score_as_one(registered: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = registered["coco"]
    records = DatasetCatalog.get(name)
    outputs = {
        record["image_id"]: truth_as_output(record, score=0.3 + 0.1 * place) for place, record in enumerate(records)
    }

    monkeypatch.setattr("detectron2.utils.comm.synchronize", lambda: None)
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda value: [value])

    def predict(folder: Path, ranks: int) -> None:
        evaluators = []
        for rank in range(ranks):
            monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
            monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: ranks)
            monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda rank=rank: rank == 0)
            evaluators.append(DetectionEvaluator(name, folder))
            evaluators[-1].reset()
        for place, record in enumerate(records):
            evaluators[place % ranks].process([record], [outputs[record["image_id"]]])
        for rank in reversed(range(ranks)):
            monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda rank=rank: rank == 0)
            assert (evaluators[rank].evaluate() is None) == (rank > 0)

    predict(tmp_path / "one", 1)
    predict(tmp_path / "two", 2)
    assert len(list((tmp_path / "two/predictions").glob("rank_*.jsonl"))) == 2
    results = "coco_instances_results.json"
    assert (tmp_path / "one" / results).read_bytes() == (tmp_path / "two" / results).read_bytes()
    numbers = [json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two")]
    assert numbers[0]["test_coco_val/mask_AP"] == numbers[1]["test_coco_val/mask_AP"]
    # Fewer ranks than before: the files of the others must not be counted.
    predict(tmp_path / "two", 1)
    assert len(list((tmp_path / "two/predictions").glob("rank_*.jsonl"))) == 1


def fill(folder: Path, images: list[int], ranks: int = 1, tasks: list[str] | None = None, close: bool = True) -> None:
    clear_predictions(folder)
    facts = {"dataset": "a", "kind": "coco", "annotations": "none.json", "ranks": ranks, "tasks": tasks or ["bbox"]}
    write_manifest(folder, facts)
    writer = PredictionWriter(folder, 0)
    for number in images:
        writer.write(number, [{"category_id": 1, "bbox": [0, 0, 1, 1], "score": number / 100}])
    if close:
        writer.close()


def test_images_come_in_the_order_of_their_ids_and_once(tmp_path: Path) -> None:
    fill(tmp_path, [9, 2, 40, 2])
    index = PredictionIndex(tmp_path)
    assert [image for image, _ in index] == [2, 9, 40]
    assert len(index) == 3
    assert next(iter(index))[1][0]["score"] == 0.02


def test_unfinished_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no predictions"):
        score_predictions(tmp_path)
    fill(tmp_path, [1], close=False)
    with pytest.raises(UserError, match=r"rank_00000.jsonl.part is unfinished"):
        PredictionIndex(tmp_path)
    fill(tmp_path, [1], ranks=2)
    with pytest.raises(UserError, match="1 of 2 processes"):
        PredictionIndex(tmp_path)
    fill(tmp_path, [1, 2])
    path = tmp_path / "predictions/rank_00000.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="is damaged at byte"):
        PredictionIndex(tmp_path)


LINE: dict[str, Any] = {"image_id": 1, "instances": [{"category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"score": "0.5"}, r"instances\[0\].score is '0.5'; a number is expected"),
        ({"bbox": [0, 0, 1]}, r"instances\[0\].bbox is \[0, 0, 1\]; a list of length 4 is expected"),
        ({"bbox": [0, 0, 1, float("inf")]}, r"instances\[0\].bbox\[3\] is inf; a finite number is expected"),
        ({"category_id": 2**64}, r"category_id is 18446744073709551616; a whole number of 64 bits"),
        ({"segmentation": {"size": [4, 4], "counts": [16]}}, r"segmentation.counts is \[16\]; a text is expected"),
    ],
)
def test_a_prediction_that_does_not_fit_is_named(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    fill(tmp_path, [1])
    path = tmp_path / "predictions/rank_00000.jsonl"
    path.write_text(json.dumps({**LINE, "instances": [{**LINE["instances"][0], **keys}]}) + "\n")
    with pytest.raises(UserError, match=rf"rank_00000.jsonl, the line at byte 0: .*{message}"):
        list(PredictionIndex(tmp_path))


@given(line=hostile.json_files(LINE), manifest=st.data())
@settings(max_examples=50, deadline=None)
def test_any_predictions_are_read_or_refused(line: bytes, manifest: Any, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "hostile_predictions"
    fill(folder, [1])
    file = folder / "predictions/manifest.json"
    file.write_bytes(manifest.draw(hostile.json_files(json.loads(file.read_text()))))
    (folder / "predictions/rank_00000.jsonl").write_bytes(line.replace(b"\n", b" ") + b"\n")
    hostile.success_or_one_line(lambda: list(PredictionIndex(folder)))


def test_a_score_that_is_no_number_is_refused(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, 0)
    with pytest.raises(UserError, match="image 3 has a box or score that is not finite"):
        writer.write(3, [{"category_id": 1, "bbox": [0, 0, 1, 1], "score": float("nan")}])


def test_images_without_predictions_and_strange_ones_are_refused(registered: dict[str, str], tmp_path: Path) -> None:
    records = DatasetCatalog.get(registered["coco"])
    evaluator = DetectionEvaluator(registered["coco"], tmp_path)
    with pytest.raises(UserError, match=r"3 of 4 images of .* have no predictions"):
        run(evaluator, records[:1])
    assert score_predictions(tmp_path, allow_missing=True).results["bbox"]["AP"] < 100
    with pytest.raises(UserError, match="predicted images are not in"):
        run(evaluator, [*records, {**records[0], "image_id": 77}])


def test_options_are_checked_before_inference(registered: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nearest: .*'test_coco_val'"):
        DetectionEvaluator("test_coco_vall", tmp_path)
    with pytest.raises(UserError, match="nearest: 'hotcoco'"):
        DetectionEvaluator(registered["coco"], tmp_path, backend="hotcocoa")
    with pytest.raises(UserError, match="federated"):
        DetectionEvaluator(registered["coco"], tmp_path, fixed_ap=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the recorded warnings would be counted as memory
def test_memory_does_not_grow_with_the_number_of_images(registered: dict[str, str], tmp_path: Path) -> None:
    record = DatasetCatalog.get(registered["coco"])[0]
    output = truth_as_output(record)

    def peak(images: int) -> int:
        evaluator = DetectionEvaluator(registered["coco"], tmp_path)
        evaluator.reset()
        tracemalloc.start()
        for number in range(images):
            evaluator.process([{**record, "image_id": number}], [output])
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return traced

    few, many = peak(20), peak(200)
    assert many < 1.2 * few


@pytest.mark.parametrize("images", [1, 2000])
def test_predictions_that_fill_the_disk_stay_unfinished(tmp_path: Path, images: int) -> None:
    writer = PredictionWriter(tmp_path, 0)

    def write_all() -> None:
        for image_id in range(images):
            writer.write(image_id, [{"score": 0.5, "text": "x" * 5000}])
        writer.close()

    with largest_file(4096), pytest.raises(UserError, match=r"cannot write .*rank_00000\.jsonl\.part: File too large"):
        write_all()
    assert [path.name for path in tmp_path.rglob("rank_*")] == ["rank_00000.jsonl.part"]


def test_a_path_that_no_scorer_takes(tmp_path: Path) -> None:
    for paths in ((tmp_path / "a\udcff", tmp_path), (tmp_path, tmp_path / "a\udcff")):
        with pytest.raises(UserError, match="is not UTF-8, which scorers need"):
            backends.score(*paths, "bbox", Protocol("tiny", "coco", 100), "hotcoco")
