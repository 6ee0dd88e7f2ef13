"""Words of one's own in the embedded detector, from boxes to a folder that finds them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2")

import pomp
from pomp.console import dispatch
from pomp.formats.coco_json import read
from pomp.formats.formats import read_corrections
from pomp.learning.boxed_photos import HELD_OUT, TRAIN, write_boxed_photos
from pomp.learning.own_rows import own_rows
from pomp_det import build_detector, load_config
from pomp_det.heads.seen_words import Closeness
from prompt_core import UserError
from prompt_core.files import write_safetensors

from ...support.detector import write_config
from ...support.detector_run import make_data
from ...support.region_words import region_words_settings

CLOSENESS = Closeness(0.75, 0.85, 30.0)


def test_a_word_goes_on_with_its_class_or_begins_as_a_mixture() -> None:
    names = F.normalize(torch.eye(4, 6), dim=1)
    state = {
        "roi_heads.box_predictor.0.cls_score.seen_words": names,
        "roi_heads.box_predictor.0.cls_score.seen_classes": torch.tensor([0, 1, 2, 2]),
        "backbone.detection.cells.0.weight": torch.arange(5.0)[:, None].expand(5, 3).clone(),
        "backbone.detection.cells.0.bias": torch.tensor([10.0, 20, 30, 7, 8]),
        "backbone.detection.stem.0.weight": torch.ones(2),
    }
    unseen = torch.eye(6)[5]
    half = F.normalize(torch.tensor([0.8, 0, 0, 0, 0.6, 0]), dim=0)
    text = torch.stack([names[1], names[2], names[3], unseen, half])
    own = own_rows(state, text, 3, CLOSENESS)
    # The second and the third word both mean class 2, so each gets one of its own.
    assert own.rows == [1, 3, 4, 5, 6]
    assert own.new == [1, 2, 3, 4]
    weight, bias = own.state["backbone.detection.cells.0.weight"], own.state["backbone.detection.cells.0.bias"]
    assert weight.shape == (9, 3)
    assert bias[:3].tolist() == [10, 20, 30]
    assert bias[7:].tolist() == [7, 8]
    assert bias[3:5].tolist() == pytest.approx([30, 30], abs=1e-3)
    assert bias[5] == pytest.approx(20 - 3, abs=0.01)  # as near to all three, and not seen
    assert bias[6] == pytest.approx(10 - 1.5, abs=0.01)  # half seen
    seen = own.state["roi_heads.box_predictor.0.cls_score.seen_classes"]
    assert seen.tolist() == [0, 1, 3, 4, 5, 6]
    assert len(own.state["roi_heads.box_predictor.0.cls_score.seen_words"]) == own.names == 6
    alone = own_rows(state, names[:2], 3, CLOSENESS)
    assert (alone.rows, alone.new, alone.names) == ([0, 1], [], 4)


def test_photos_are_held_out_by_their_names(tmp_path: Path) -> None:
    corrections = read_corrections(make_data(tmp_path), tmp_path)
    boxed = write_boxed_photos(corrections, tmp_path, tmp_path / "run", 0.3, 0)
    assert (boxed.photos, boxed.held_out, boxed.side) == (4, 2, 64)
    assert boxed.words == ["cat", "toy car", "dining table"]
    train, held_out = (read(tmp_path / "run" / name) for name in (TRAIN, HELD_OUT))
    assert sum(len(photo.objects) for photo in train.photos) == boxed.boxes
    names = [photo.name for photo in (*train.photos, *held_out.photos)]
    assert sorted(names) == [f"{number}.png" for number in range(1, 7)]
    assert (tmp_path / "run" / "words.txt").read_text() == "cat\ntoy car\ndining table\n"
    with pytest.raises(UserError, match="is not in"):
        write_boxed_photos(corrections, tmp_path / "run", tmp_path / "other", 0.3, 0)


@pytest.mark.slow
def test_boxes_in_a_detector_out(
    tmp_path: Path, tiny_model: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = make_data(tmp_path)
    settings = region_words_settings(tmp_path, **{"MODEL.CLIP.NAME": str(tiny_model[0]), "MODEL.MASK_ON": True})
    settings |= {"MODEL.CLIP.PRETRAINED": str(tiny_model[1]), "MODEL.WEIGHTS": str(tmp_path / "start.safetensors")}
    settings |= {"MODEL.ROI_HEADS.NUM_CLASSES": 80}  # as in the embedded detector's, whatever the words are
    settings |= {"MODEL.PROMPT": "a photo of a {}.", "INPUT.CUSTOM_AUG": "", "INPUT.MIN_SIZE_TRAIN": [64]}
    file = write_config(tmp_path / "tiny.yaml", settings)
    torch.manual_seed(0)
    cfg = load_config(file, {"MODEL.PROMPT": ""})
    write_safetensors(tmp_path / "start.safetensors", build_detector(cfg).state_dict(), {})
    output = tmp_path / "mine"
    given = ["train", str(annotations), "--output", str(output), "--model", str(file), "--held-out", "0.3"]
    assert dispatch([*given, "SOLVER.MAX_ITER", "3"]) == 0
    said = capsys.readouterr().out
    assert "2 photos are held out" in said
    assert "held-out photos; before" in said
    assert json.loads((output / "after" / "metrics.json").read_text())["_protocol"]
    model = pomp.load(output, threshold=0.0)
    assert model.names == ["cat", "toy car", "dining table"]
    found = model.predict(tmp_path / "1.png")
    assert found.mask is not None
    assert model.words(["zebra"]).names == ["zebra"]
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        dispatch(given)
    # A finished run that is resumed stays what it is.
    weights = torch.load(output / "model_final.pth", weights_only=True)["model"]
    assert dispatch([*given, "--resume", "SOLVER.MAX_ITER", "3"]) == 0
    again = torch.load(output / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(again[key], value) for key, value in weights.items())
