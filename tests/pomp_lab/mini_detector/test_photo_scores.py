"""What the card's numbers are made of: boxes that count as crowds, the best box's word, and ratios of times."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from pomp_lab.benchmarks.harness import in_fresh_process
from pomp_lab.mini_detector import photo_scores
from pomp_lab.mini_detector.photo_cost import BOTH, DETECTION, bounds, measure_cost, measure_loading, photos_of
from pomp_lab.mini_detector.photo_scores import best_box_words, together, voc_scores, with_crowds
from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError

from ...support.detector import write_config
from ...support.detector_run import make_data
from ...support.region_words import region_words_settings
from ...support.tools import call_tool

__all__ = ["call_tool"]


def test_difficult_boxes_are_crowds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": 1, "iscrowd": 0, "ignore": 1}, {"id": 2, "iscrowd": 0, "ignore": 0}, {"id": 3, "iscrowd": 1}]
    document = {"annotations": rows, "categories": [{"id": 1, "name": "tvmonitor"}, {"id": 2, "name": "bird"}]}
    assert [row["iscrowd"] for row in with_crowds(document)["annotations"]] == [1, 0, 1]
    assert rows[0]["iscrowd"] == 0  # the given document is as it was
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/boxes_val.json").write_text(json.dumps(document))
    seen: dict[str, Any] = {}

    def scored(config: str, settings: dict[str, Any]) -> dict[str, Any]:
        seen.update(settings)
        seen["boxes"] = json.loads(Path(settings["DATASETS.FILES"][0][1]).read_text())
        return {"voc_2007_val/box_AP50": 1.0}

    monkeypatch.setattr(photo_scores, "scored", scored)
    assert voc_scores("x.yaml", {"SEED": 3}, tmp_path) == {"voc_2007_val/box_AP50": 1.0}
    assert seen["MODEL.VOCABULARY"] == "tvmonitor,bird"
    assert seen["SEED"] == 3
    assert seen["boxes"] == with_crowds(document)


def test_the_best_boxs_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ["n02012849", "n01440764", "n01443537"]  # crane (also a machine), tench, goldfish
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    keys = [f"{number}.png" for number in range(4)]
    images = ImageSet(["crane", "tench", "goldfish"], ids, np.array([0, 1, 2, 2]), keys, "a test", tmp_path)
    from prompt_core.vocabulary import Vocabulary

    names = Vocabulary.load("imagenet1k").names
    crane = [number for number, name in enumerate(names) if name == "crane"]
    answers = {0: [crane[1], 3], 1: [names.index("goldfish")], 2: [names.index("goldfish")], 3: []}

    class Predictor:
        class_names = names

        @staticmethod
        def load(cfg: Any, words: str) -> Predictor:
            assert cfg.TEST.DETECTIONS_PER_IMAGE == 1
            assert words == "imagenet1k"
            return Predictor()

        def detect(self, pixels: np.ndarray) -> Any:
            classes = torch.tensor(answers[int(pixels[0, 0, 0])])
            found = type("Found", (SimpleNamespace,), {"__len__": lambda self: len(classes)})
            return found(pred_classes=classes, scores=torch.full((len(classes),), 0.65))

    monkeypatch.setattr(photo_scores, "OpenVocabularyPredictor", Predictor)
    monkeypatch.setattr(
        photo_scores,
        "load_config",
        lambda file, settings: SimpleNamespace(
            TEST=SimpleNamespace(DETECTIONS_PER_IMAGE=settings["TEST.DETECTIONS_PER_IMAGE"])
        ),
    )
    numbers = best_box_words("x.yaml", {}, images)
    assert numbers["imagenet_samples/top1"] == 50  # classes that share a name count as one
    assert numbers["imagenet_samples/photos without a box"] == 25
    (above,) = (row for row in numbers["_reliability"]["imagenet_samples"]["above"] if row["threshold"] == 0.5)
    assert above == {"threshold": 0.5, "detections": 3, "precision": pytest.approx(2 / 3), "recall": 0.5}
    stranger = ImageSet(["dog"], ["n00000001"], np.array([0]), ["0.png"], "a test", tmp_path)
    with pytest.raises(UserError, match="class 'n00000001' is not in ImageNet-1K"):
        best_box_words("x.yaml", {}, stranger)
    both = together(numbers, {"x/box_AP": 1.0, "_protocol": {"x": {"images": 3}}})
    assert both["_protocol"].keys() == {"imagenet_samples", "x"}


def test_bounds_are_ratios_of_seconds() -> None:
    seconds = {DETECTION: 1.0, BOTH: 2.0, "80 words": 2.0, "1,203 words": 3.0, "21,843 words": 6.0}
    found = bounds(seconds, 21.0, 10**8)
    assert {name: (bound["measured"], bound["met"]) for name, bound in found.items()} == {
        f"1,203 words by {DETECTION}": (3.0, False),
        f"1,203 words by {BOTH}": (1.5, True),
        "21,843 words by 1,203 words": (2.0, False),
        "loading by photos": (10.5, False),
        "bytes of the process": (10**8, True),
    }


@pytest.mark.slow
def test_cost_of_a_tiny_detector(tmp_path: Path) -> None:
    make_data(tmp_path, count=3)
    words = {
        "MODEL.VOCABULARY": "cat,dog",
        "MODEL.PROMPT": "a {}.",
        "MODEL.CLIP.NAME": "mini",
        "MODEL.WORDS.WIDTH": 116,
    }
    width = {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 116, "MODEL.WORDS.WIDTH": 116}
    settings = words | width | {"MODEL.RANDOM_WEIGHTS": True}
    config = write_config(tmp_path / "tiny.yaml", region_words_settings(tmp_path, **settings))
    (tmp_path / "photos").mkdir()
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").rename(tmp_path / f"photos/{number}.png")
    assert len(photos_of(tmp_path / "photos", 2)) == 2
    photos = photos_of(tmp_path / "photos", 9)
    report = in_fresh_process(measure_cost, str(config), {}, photos, ["cat,dog", "cup,car,tree"], 2, [99.0])
    assert list(report["seconds"]) == [DETECTION, BOTH, "2 words", "3 words"]
    for values in report["seconds"].values():
        assert len(values["all"]) == 2
        assert 0 < values["fastest"] <= values["min"] * (1 + 1e-9)
    assert 0 < report["loading_seconds"]["min"] < report["loading_seconds"]["max"] == 99
    assert in_fresh_process(measure_loading, str(config), {}) > 0
    assert report["peak_bytes"]["one vocabulary"] > 10**7
    assert sum(report["parts"]["3 words"].values()) > 0
    assert report["parts"]["3 words"]["backbone"] > 0


def test_nothing_to_measure_is_one_line(call_tool: Callable[..., Any], tmp_path: Path) -> None:
    code, _, error = call_tool("benchmark_mini_detector", "--output", tmp_path / "x.json")
    assert (code, error.count("\n")) == (2, 1)
    code, _, error = call_tool("benchmark_mini_detector", "--voc", tmp_path / "absent", "--output", tmp_path / "x.json")
    assert code == 2
    assert "absent does not exist" in error
    assert not (tmp_path / "x.json").exists()
