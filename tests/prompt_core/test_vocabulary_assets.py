"""The class lists shipped with the package: counts, uniqueness, and agreement with the published embeddings' rows."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("POMP_SHARED", ROOT.parent / "shared"))
CLIP_TEXT = SHARED / "data" / "clip_text"
COUNTS = {"lvis": 1203, "coco": 80, "objects365": 365, "ade20k": 150}
needs_shared = pytest.mark.skipif(not CLIP_TEXT.is_dir(), reason="POMP_SHARED has no data/clip_text")


def load(name: str) -> dict[str, Any]:
    path = resources.files("prompt_core") / "assets" / "vocabularies" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", COUNTS)
def test_lists_have_one_entry_per_class(name: str) -> None:
    vocabulary = load(name)
    assert list(vocabulary) == ["source", "names", "ids", "synsets", "synonyms", "frequency"]
    for key in ("names", "ids", "synsets", "synonyms", "frequency"):
        assert vocabulary[key] is None or len(vocabulary[key]) == COUNTS[name], key


@pytest.mark.parametrize("name", COUNTS)
def test_names_and_ids_are_unique_clean_and_in_id_order(name: str) -> None:
    vocabulary = load(name)
    assert len(set(vocabulary["names"])) == COUNTS[name]
    assert all(text and text == text.strip() for text in vocabulary["names"])
    assert vocabulary["ids"] == sorted(set(vocabulary["ids"]))
    assert all(all(words) and len(words) > 0 for words in vocabulary["synonyms"] or [])


@pytest.mark.parametrize("name", COUNTS)
def test_source_states_a_licence(name: str) -> None:
    assert any(licence in load(name)["source"] for licence in ("CC BY 4.0", "BSD 3-Clause"))


def test_lvis_frequency_groups_and_ids() -> None:
    vocabulary = load("lvis")
    assert Counter(vocabulary["frequency"]) == {"f": 405, "c": 461, "r": 337}
    assert vocabulary["ids"] == list(range(1, 1204))
    assert len(set(vocabulary["synsets"])) == 1203


def test_coco_ids_have_the_official_gaps() -> None:
    vocabulary = load("coco")
    assert (vocabulary["ids"][0], vocabulary["ids"][-1]) == (1, 90)
    assert set(range(1, 91)) - set(vocabulary["ids"]) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def test_ade20k_synonyms_are_the_parts_of_the_name() -> None:
    vocabulary = load("ade20k")
    assert vocabulary["names"][6] == "road, route"
    assert vocabulary["synonyms"][6] == ["road", "route"]
    assert [", ".join(parts) for parts in vocabulary["synonyms"]] == vocabulary["names"]


@needs_shared
@pytest.mark.parametrize(
    ("name", "file"),
    [("lvis", "lvis_v1_clip_a+cname"), ("coco", "coco_clip_a+cname"), ("objects365", "o365_clip_a+cnamefix")],
)
def test_names_and_ids_follow_the_rows_of_the_published_embeddings(name: str, file: str) -> None:
    published = json.loads((CLIP_TEXT / f"{file}.names.json").read_text(encoding="utf-8"))
    vocabulary = load(name)
    assert vocabulary["names"] == published["names"]
    assert vocabulary["ids"] == published["category_ids"]


@needs_shared
def test_objects365_names_are_the_corrected_ones() -> None:
    with (CLIP_TEXT / "Objects365_names_fix.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    vocabulary = load("objects365")
    assert vocabulary["ids"] == [int(row[0]) for row in rows]
    assert vocabulary["names"] == [row[2] for row in rows]


@needs_shared
def test_lvis_agrees_with_the_training_categories() -> None:
    categories = json.loads((CLIP_TEXT / "lvis_v1_train_cat_info.json").read_text(encoding="utf-8"))
    vocabulary = load("lvis")
    keys = {"names": "name", "ids": "id", "synsets": "synset", "synonyms": "synonyms", "frequency": "frequency"}
    for ours, theirs in keys.items():
        assert vocabulary[ours] == [category[theirs] for category in categories], ours
