"""Open Images: boxes to train on, those to score expanded by the hierarchy, and the AP50 that its protocol asks for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("detectron2")
pytest.importorskip("pycocotools")

from detectron2.data import DatasetCatalog

from pomp_det import build_detector, load_config
from pomp_det.checks import check_class_facts
from pomp_det.data.check_files import check_group
from pomp_det.data.loader import build_train_loader, index_sampler, training_records
from pomp_det.data.openimages_classes import HIERARCHY, class_labels, read_ancestors
from pomp_det.data.prepare.openimages import BOXES, COUNTS, LABELS, TRAIN, prepare_openimages
from pomp_det.data.registration import register_datasets
from pomp_det.evaluation.evaluator import DetectionEvaluator
from pomp_det.evaluation.openimages_scores import open_images_average_precision
from pomp_det.task import detection_task
from pomp_engine import loop
from prompt_core.data.check import PRESENT
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

from ..support.detector import TINY
from .test_evaluation_files import truth_as_output

HEADER = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf"
ANIMAL, DOG, CAT = "/m/0jbk", "/m/0bt9lr", "/m/01yrx"
TREE = {
    "LabelName": "/m/0bl9f",
    "Subcategory": [
        {"LabelName": ANIMAL, "Subcategory": [{"LabelName": DOG}, {"LabelName": CAT}], "Part": [{"LabelName": "/m/x"}]}
    ],
}


def overlap(first: Any, second: Any, by_first: bool = False) -> float:
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    own = first[2] * first[3]
    return float(shared / (own if by_first else own + second[2] * second[3] - shared))


def reference(document: Any, detections: Any, ancestors: Mapping[int, Iterable[int]]) -> dict[int, float]:
    """The protocol word by word, a detection at a time."""
    result = {}
    for category in (entry["id"] for entry in document["categories"]):
        entries = []
        for image in document["images"]:
            if category not in image["pos_category_ids"] + image["neg_category_ids"]:
                continue
            boxes = [a for a in document["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category)]
            single, groups = ([a for a in boxes if a["iscrowd"] == crowd] for crowd in (0, 1))
            taken, of_group = set(), {}
            mine = [
                d
                for d in detections
                if d["image_id"] == image["id"] and category in (d["category_id"], *ancestors.get(d["category_id"], ()))
            ]
            for detection in sorted(mine, key=lambda d: -d["score"]):
                values = [overlap(detection["bbox"], a["bbox"]) for a in single]
                best = int(np.argmax(values)) if values else -1
                if values and values[best] >= 0.5 and best not in taken:
                    taken.add(best)
                    entries.append((detection["score"], True))
                    continue
                values = [overlap(detection["bbox"], a["bbox"], by_first=True) for a in groups]
                best = int(np.argmax(values)) if values else -1
                if values and values[best] >= 0.5:
                    of_group[best] = max(of_group.get(best, 0), detection["score"])
                else:
                    entries.append((detection["score"], False))
            entries += [(score, True) for score in of_group.values()]
        count = sum(a["category_id"] == category for a in document["annotations"])
        if not count:
            continue
        entries.sort(key=lambda entry: -entry[0])
        hits, points = 0, []
        for place, (_, right) in enumerate(entries, 1):
            hits += right
            points.append((hits / count, hits / place))
        area, before = 0.0, 0.0
        for place, (recall, _) in enumerate(points):
            area += (recall - before) * max(precision for _, precision in points[place:])
            before = recall
        result[category] = area
    return result


BOX = st.tuples(*[st.integers(0, 6).map(float)] * 2, *[st.integers(1, 6).map(float)] * 2)


@st.composite
def scored(draw: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    images, annotations, detections = [], [], []
    values = iter(draw(st.permutations(range(24))))  # no ties: their order would be the reference's own
    for number in (1, 2):
        present = draw(st.sets(st.integers(1, 3)))
        absent = draw(st.sets(st.integers(1, 3))) - present
        images.append({"id": number, "pos_category_ids": sorted(present), "neg_category_ids": sorted(absent)})
        for category in sorted(present):
            for box, crowd in draw(st.lists(st.tuples(BOX, st.integers(0, 1)), max_size=3)):
                annotations.append({"image_id": number, "category_id": category, "bbox": box, "iscrowd": crowd})
        for box, category in draw(st.lists(st.tuples(BOX, st.integers(1, 3)), max_size=8)):
            score = 0.01 + next(values) / 24
            detections.append({"image_id": number, "category_id": category, "bbox": box, "score": score})
    categories = [{"id": number} for number in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


@settings(max_examples=25, deadline=None)
@given(scored(), st.booleans())
def test_scores_are_those_of_the_protocol(case: Any, expand: bool) -> None:
    document, detections = case
    ancestors = {2: [1], 3: [1, 2]} if expand else {}
    found = open_images_average_precision(document, detections, ancestors)
    expected = reference(document, detections, ancestors)
    assert [row + 1 for row in range(3) if not np.isnan(found[row])] == sorted(expected)
    for category, value in expected.items():
        assert found[category - 1] == pytest.approx(value, abs=1e-12)


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    """Two photos: a dog in one, where cats were not found; a group of animals in the other."""
    folder, photos = tmp_path / "oid/annotations", tmp_path / "oid/images/validation"
    folder.mkdir(parents=True)
    photos.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (40, 20)).save(photos / f"{name}.jpg")
    rows = [f"a,{DOG},0.25,0.5,0.5,1,0", f"b,{ANIMAL},0,1,0,1,1", f"c,{CAT},0,1,0,1,0"]
    (folder / BOXES.format(split="validation")).write_text("\n".join([HEADER, *rows]) + "\n")
    rows = [f"a,verification,{DOG},1", f"a,verification,{CAT},0", f"b,verification,{ANIMAL},1"]
    (folder / LABELS.format(split="validation")).write_text(
        "\n".join(["ImageID,Source,LabelName,Confidence", *rows]) + "\n"
    )
    (folder / HIERARCHY).write_text(json.dumps(TREE))
    return tmp_path


@pytest.fixture
def prepared(downloaded: Path) -> Iterator[Path]:
    _, problems = prepare_openimages(downloaded)
    assert any("c.jpg" in line for line in problems.lines())
    yield downloaded
    register_datasets()


def test_the_hierarchy_expands_boxes_and_labels(prepared: Path) -> None:
    document = json.loads((prepared / "oid/annotations/oid_challenge_2019_val_expanded.json").read_text())
    name_of = {category["id"]: category["name"] for category in document["categories"]}
    labels = {category["id"]: category["freebase_id"] for category in document["categories"]}
    assert len(name_of) == 500
    assert list(name_of.values()) == Vocabulary.load("openimages").names
    boxes = [(a["image_id"], name_of[a["category_id"]], a["bbox"], a["iscrowd"]) for a in document["annotations"]]
    assert boxes == [
        (1, "Dog", [10.0, 10.0, 10.0, 10.0], 0),
        (1, "Animal", [10.0, 10.0, 10.0, 10.0], 0),
        (2, "Animal", [0.0, 0.0, 40.0, 20.0], 1),
    ]
    known = [
        [{labels[number] for number in image[key]} for key in ("pos_category_ids", "neg_category_ids")]
        for image in document["images"]
    ]
    assert known == [[{DOG, ANIMAL}, {CAT}], [{ANIMAL}, set()]]


def test_a_detector_is_scored_by_both_numbers(prepared: Path, tmp_path: Path) -> None:
    register_datasets(prepared)
    evaluator = DetectionEvaluator("oid_val_expanded", tmp_path / "out", backend="hotcoco")
    records = DatasetCatalog.get("oid_val_expanded")
    dog = next(row for row, label in enumerate(class_labels()) if label == DOG)
    evaluator.reset()
    for record in records:
        record["annotations"] = [{**record["annotations"][0], "category_id": dog}]  # a dog in each, and no animal
        evaluator.process([record], [truth_as_output(record, masks=False)])
    results = evaluator.evaluate()
    # Nobody said whether b has a dog; that a has an animal, and b a group of them, follows from the dogs.
    assert results == {"bbox": {"AP50": pytest.approx(50.0), "AP50-expanded": pytest.approx(100.0)}}
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["oid_val_expanded/box_AP50"] == pytest.approx(50.0)
    assert metrics["_protocol"]["oid_val_expanded"]["metric"] == "Open Images AP50"


def test_what_is_missing_gets_one_line(prepared: Path, tmp_path: Path) -> None:
    folder = prepared / "oid/annotations"
    (folder / HIERARCHY).write_text(json.dumps({"LabelName": "root", "Subcategory": [{"LabelName": "/m/none"}]}))
    with pytest.raises(UserError, match="'/m/none' is none of the 500 classes"):
        read_ancestors(folder / HIERARCHY, class_labels())
    (folder / HIERARCHY).unlink()
    from pomp_det.checks import check_ground_truth

    register_datasets(prepared)
    with pytest.raises(UserError, match="hierarchy of its classes"):
        check_ground_truth("oid_val_expanded")


@pytest.mark.parametrize(
    ("row", "message"),
    [("a,/m/none,0,1,0,1,0", "'/m/none' is none of the 500"), (f"a,{DOG},0,x,0,1,0", "XMax is a number, found 'x'")],
)
def test_a_damaged_table_writes_nothing(downloaded: Path, row: str, message: str) -> None:
    folder = downloaded / "oid/annotations"
    with open(folder / BOXES.format(split="validation"), "a", encoding="utf-8") as table:
        table.write(row + "\n")
    with pytest.raises(UserError, match=message):
        prepare_openimages(downloaded)
    assert not (folder / "oid_challenge_2019_val_expanded.json").exists()


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Path]:
    """Photos in the three places that are looked for: dogs in four, a cat in one, a group of animals in one."""
    folder, photos = tmp_path / "oid/annotations", tmp_path / "oid/images"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for place in ("0/01.jpg", "0/02.jpg", "train_a/a1.jpg", "train/b1.jpg", "train/b2.jpg", "train/b3.jpg"):
        (photos / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(photos / place)
    rows = [f"{name},{DOG},0.25,0.75,0.25,1,0" for name in ("01", "02", "a1", "b1")]
    rows += [f"b1,{CAT},0,0.5,0,0.5,0", f"b1,{ANIMAL},0,1,0,1,1", f"b2,{ANIMAL},0,1,0,1,1", f"ff,{CAT},0,1,0,1,0"]
    (folder / BOXES.format(split="train")).write_text("\n".join([HEADER, *rows]) + "\n")
    rows = [f"b1,verification,{CAT},1", f"01,verification,{ANIMAL},0", f"b3,verification,{DOG},1"]
    table = "\n".join(["ImageID,Source,LabelName,Confidence", *rows]) + "\n"
    (folder / LABELS.format(split="train")).write_text(table)
    (folder / HIERARCHY).write_text(json.dumps(TREE))
    made, problems = prepare_openimages(tmp_path)
    assert [path.name for path in made] == [TRAIN, COUNTS]
    assert problems.counts == {"photos left out (unreadable)": 1}  # ff
    yield tmp_path
    register_datasets()


def test_training_boxes_stay_as_they_are_labelled(training: Path) -> None:
    document = json.loads((training / "oid/annotations" / TRAIN).read_text())
    photos = [image["file_name"] for image in document["images"]]
    assert photos == ["0/01.jpg", "0/02.jpg", "train_a/a1.jpg", "train/b1.jpg", "train/b2.jpg"]  # b3 has no box
    labels = {category["id"]: category["freebase_id"] for category in document["categories"]}
    boxes = [(a["image_id"], labels[a["category_id"]], a["bbox"], a["iscrowd"]) for a in document["annotations"]]
    dog, everything = [24.0, 16.0, 48.0, 48.0], [0.0, 0.0, 96.0, 64.0]
    assert boxes == [
        *[(number, DOG, dog, 0) for number in (1, 2, 3, 4)],
        (4, CAT, [0.0, 0.0, 48.0, 32.0], 0),
        (4, ANIMAL, everything, 1),
        (5, ANIMAL, everything, 1),
    ]
    known = [
        tuple({labels[number] for number in image[f"{side}_category_ids"]} for side in ("pos", "neg"))
        for image in document["images"]
    ]
    assert known[0] == ({DOG}, {ANIMAL})  # as people said; the hierarchy adds nothing to training labels
    assert known[3] == ({DOG, CAT, ANIMAL}, set())
    listed = json.loads((training / "oid/annotations" / COUNTS).read_text())
    counts = {entry["freebase_id"]: entry["image_count"] for entry in listed}
    assert (counts[DOG], counts[CAT], counts[ANIMAL], len(counts)) == (4, 1, 2, 500)
    findings = [finding for finding in check_group("openimages", training) if finding.dataset == "oid_train"]
    assert [finding.state for finding in findings] == [PRESENT, PRESENT]


def test_a_detector_learns_from_the_boxes(training: Path, tmp_path: Path) -> None:
    register_datasets(training)
    head, folder = "MODEL.ROI_BOX_HEAD.", training / "oid/annotations"
    learning = {
        "MODEL.DEVICE": "cpu",
        "MODEL.MASK_ON": False,
        "MODEL.ROI_HEADS.NUM_CLASSES": 500,
        f"{head}USE_FED_LOSS": True,
        f"{head}CAT_FREQ_PATH": str(folder / COUNTS),
        f"{head}HIERARCHY_IGNORE": True,
        f"{head}HIERARCHY_POS_PARENTS": True,
        f"{head}HIERARCHY_PATH": str(folder / HIERARCHY),
        "DATASETS.TRAIN": ("oid_train",),
        "DATALOADER.SAMPLER_TRAIN": "ClassAwareSampler",
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 2,
        "SEED": 0,
        "OUTPUT_DIR": str(tmp_path / "run"),
    }
    cfg = load_config(None, TINY | learning)
    records, sizes = training_records(cfg)
    assert len(records) == 4  # the photo with a group alone teaches no box
    drawn = np.fromiter(itertools.islice(index_sampler(cfg, records, sizes, 0), 20_000), int)
    # Dogs are in four photos, of which the last alone has a cat and animals: 1/4 of a dog each, and two classes more.
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), np.array([1, 1, 1, 9]) / 12, atol=0.02)
    batch = next(iter(build_train_loader(cfg)))
    dog, animal = (class_labels().index(label) for label in (DOG, ANIMAL))
    learned = torch.cat([example["instances"].gt_classes for example in batch]).tolist()
    assert dog in learned
    assert animal not in learned  # a group is no box of one object
    model = build_detector(cfg)
    check_class_facts(model)
    loop.train(detection_task(), cfg, model, resume=False)
    weights = torch.load(tmp_path / "run/model_final.pth", weights_only=True)["model"]
    assert all(bool(torch.isfinite(value).all()) for value in weights.values() if value.is_floating_point())


def test_without_any_table_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"neither .*validation-detection-bbox.csv nor .*train-detection-bbox.csv exists"
    ):
        prepare_openimages(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "", "..", "a" * 300])
def test_an_id_that_is_no_name_of_a_file_is_refused(training: Path, name: str) -> None:
    with open(training / "oid/annotations" / BOXES.format(split="train"), "a", encoding="utf-8") as table:
        table.write(f"{name},{DOG},0,1,0,1,0\n")
    with pytest.raises(UserError, match=r"train-detection-bbox\.csv: ImageID .* is none; a file name"):
        prepare_openimages(training)


def test_a_split_without_photos_does_not_stop_the_other(downloaded: Path) -> None:
    folder = downloaded / "oid/annotations"
    for kind in (BOXES, LABELS):
        (folder / kind.format(split="train")).write_bytes((folder / kind.format(split="validation")).read_bytes())
    with pytest.raises(UserError, match=r"holds no photo of challenge-2019-train.*val_expanded\.json is written"):
        prepare_openimages(downloaded)
    assert (folder / "oid_challenge_2019_val_expanded.json").is_file()
    assert not (folder / TRAIN).exists()
