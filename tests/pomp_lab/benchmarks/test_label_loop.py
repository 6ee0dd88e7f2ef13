"""The measured loop on tiny photos: what is corrected, what is looked at, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pomp.learning.encoded import EncodedExamples
from pomp_lab.benchmarks.label_loop import Loop, LoopPlan, labelled_photos, none_of_these, with_few_words
from pomp_lab.benchmarks.loop_table import loop_table
from prompt_core import UserError, Vocabulary
from prompt_core.background.background import Background

WORDS = ("red", "green", "blue", "grey")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like VOC's, with a difficult box in each photo."""
    folder = tmp_path_factory.mktemp("voc")
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir()
    for part, count in (("train", 12), ("val", 8)):
        (folder / f"{part}2007").mkdir()
        images, annotations = [], []
        for number in range(count):
            name = f"{number}.png"
            Image.fromarray(rng.integers(0, 255, (24, 40, 3), dtype=np.uint8)).save(folder / f"{part}2007" / name)
            images.append({"id": number, "file_name": name, "width": 40, "height": 24})
            for place, (box, ignore) in enumerate((([0, 0, 12, 12], 0), ([10, 2, 20, 20], 0), ([0, 0, 9, 9], 1))):
                row = {"id": 3 * number + place, "image_id": number, "category_id": (number + place) % 4 + 1}
                annotations.append({**row, "bbox": box, "ignore": ignore, "iscrowd": 0})
        categories = [{"id": row + 1, "name": name} for row, name in enumerate(WORDS)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"boxes_{part}.json").write_text(json.dumps(document))
    (folder / "names.txt").write_text("table\nchair\nlamp\nsky\nriver\nhouse\n")
    return folder


def test_corrections_are_the_boxes_that_are_not_difficult(root: Path) -> None:
    photos, words = labelled_photos(root, "train")
    assert words.names == list(WORDS)
    assert [thing.word for thing in photos[0].objects] == ["red", "green"]
    assert photos[0].words == ("green", "red")  # the largest first
    few = with_few_words(photos[:3], ["red"])
    assert [photo.words for photo in few] == [("red",), (), ()]
    (root / "annotations" / "boxes_test.json").write_text('{"images": [{}], "categories": []}')
    with pytest.raises(UserError, match="is no COCO document of boxes"):
        labelled_photos(root, "test")


def test_a_turn_measures_boxes_photos_and_none_of_these(root: Path, tiny_clip: Any, tmp_path: Path) -> None:
    names = str(root / "names.txt")
    settings = ["OPTIM.EPOCHS=1", "LOSS.NUM_CLASSES=4", "LOSS.ANCHOR=0", f"DATA.VOCABULARY={names}"]
    loop = Loop(LoopPlan(root, 8, 6, 2, [0], tmp_path, settings), tiny_clip)
    turn = loop.turn(0)
    assert (turn.numbers["boxes"]["images"], turn.numbers["photos"]["images"]) == (12, 6)
    assert len(turn.numbers["none of these"]["words"]) == 2
    scores = {"template": {"AP": 30.0, "AP50": 50.0}, "seed 0": {"AP": 31.0, "AP50": 51.0}}
    headings, rows = loop_table({"seeds": {"0": turn.numbers}, "box_ap": {"as shipped": scores}})
    assert headings == ["measure", "before", "after"]
    assert rows[-2] == ["detector as shipped: box AP", "30.0", "31.0 ± 0.0"]
    assert rows[0][1] == f"{turn.numbers['boxes']['before']:.1f} ± 0.0"


class _Text:
    """Words' features that are given."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features

    def class_features(self, words: Vocabulary) -> torch.Tensor:
        return self.features


def test_none_of_these_is_counted() -> None:
    axes = torch.eye(4)
    plain = torch.stack([axes[0], axes[1], axes[2]]).numpy()  # the last one looks like another name
    nothing = torch.stack([axes[2], axes[0]]).numpy()  # the last one looks like the first word
    right = np.array([[True, False], [False, True], [True, False]])
    labels = np.array([0, 1, 0])
    others = EncodedExamples(
        Vocabulary(["a", "b"]), plain, plain[:, None], labels, right, np.arange(3), nothing, [], "", ""
    )
    method: Any = _Text(axes[:2])
    found = none_of_these(method, others, Background(axes[2:], ["c", "d"], 50.0))
    assert found["precision"] == pytest.approx(100 * 2 / 3)
    assert found["answered"] == pytest.approx(100 * 2 / 3)
    assert found["refused"] == 50
    assert found["none_right"] == 50
