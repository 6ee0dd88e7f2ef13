"""Photos and words in, pictures and a COCO file out, as users run it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")
pytest.importorskip("supervision")

from PIL import Image
from pycocotools import mask as run_lengths

from pomp_det import load_config
from pomp_det.class_matrix import classifier_of_names
from pomp_det.predictor import OpenVocabularyPredictor
from prompt_core import TextClassifier, UserError

from ..support.detector import TINY, write_config

TOOL = Path(__file__).resolve().parents[2] / "tools" / "predict.py"
NAMES = ["cat", "toy car", "dining table"]
SMALL = {"INPUT.MIN_SIZE_TEST": 96, "INPUT.MAX_SIZE_TEST": 200, "MODEL.DEVICE": "cpu"}


@pytest.fixture
def folder(tmp_path: Path, make_tiny: Callable[..., Any]) -> Path:
    """A configuration, weights, a classifier file and two photos of different sizes."""
    rows = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    TextClassifier(rows, NAMES, {}).save(tmp_path / "classifier.safetensors")
    torch.save({"model": make_tiny().state_dict()}, tmp_path / "model_final.pth")
    changed = {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(tmp_path / "classifier.safetensors")}
    write_config(tmp_path / "tiny.yaml", TINY | SMALL | changed | {"MODEL.ROI_HEADS.NUM_CLASSES": 3})
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    for name, size in (("a.png", (90, 120)), ("photos/b.PNG", (64, 48))):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*arguments: str) -> int:
        base = ["--model", "tiny.yaml", "--weights", "model_final.pth", "--output", "out", "--threshold", "0"]
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [str(TOOL), *base, *arguments])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(TOOL), run_name="__main__")
        return int(stopped.value.code or 0)

    return call


def test_pictures_and_coco_json(folder: Path, run: Callable[..., int]) -> None:
    assert run("a.png", "photos") == 0
    document = json.loads((folder / "out/detections.json").read_text())
    assert [category["name"] for category in document["categories"]] == NAMES
    assert [(image["height"], image["width"]) for image in document["images"]] == [(90, 120), (64, 48)]
    assert {annotation["image_id"] for annotation in document["annotations"]} == {1, 2}
    for annotation in document["annotations"]:
        size = document["images"][annotation["image_id"] - 1]
        x, y, width, height = annotation["bbox"]
        assert 0 <= x <= x + width <= size["width"] + 1e-3
        assert 0 <= y <= y + height <= size["height"] + 1e-3
        assert 1 <= annotation["category_id"] <= 3
        assert annotation["segmentation"]["size"] == [size["height"], size["width"]]
        assert run_lengths.decode(annotation["segmentation"]).shape == (size["height"], size["width"])
    for picture, photo in (("0001_a.png", "a.png"), ("0002_b.png", "photos/b.PNG")):
        drawn, plain = (np.asarray(Image.open(folder / file)) for file in (f"out/{picture}", photo))
        assert drawn.shape == plain.shape
        assert (drawn != plain).any()


def test_words_change_on_the_loaded_model(
    folder: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pomp_det.predictor

    loads: list[str] = []
    load = pomp_det.predictor.load_weights
    monkeypatch.setattr(pomp_det.predictor, "load_weights", lambda m, file: (loads.append(file), load(m, file)))
    assert run("a.png", "--vocabulary", "Dining_table", "--vocabulary", "cat,toy car,dining table") == 0
    assert loads == ["model_final.pth"]
    first, second = (json.loads((folder / f"out/{number}/detections.json").read_text()) for number in (1, 2))
    assert [category["name"] for category in first["categories"]] == ["Dining_table"]
    assert len(second["categories"]) == 3
    assert {annotation["category_id"] for annotation in first["annotations"]} == {1}


def test_a_threshold_above_all_leaves_the_photo(folder: Path, run: Callable[..., int]) -> None:
    assert run("a.png", "--threshold", "1") == 0
    assert json.loads((folder / "out/detections.json").read_text())["annotations"] == []
    drawn, plain = (np.asarray(Image.open(folder / file)) for file in ("out/0001_a.png", "a.png"))
    assert (drawn == plain).all()


def test_predictor_is_the_model_on_the_resized_photo(folder: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    by_order = {}
    for order, given in (("RGB", pixels), ("BGR", pixels[:, :, ::-1])):
        weights = {"MODEL.WEIGHTS": str(folder / "model_final.pth"), "INPUT.FORMAT": order}
        predictor = OpenVocabularyPredictor.load(load_config(folder / "tiny.yaml", weights))
        by_order[order] = predictor(np.ascontiguousarray(given))
    image = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))
    with torch.no_grad():
        direct = predictor.model([{"image": image, "height": 96, "width": 128}])[0]["instances"]
    for instances in by_order.values():
        assert len(instances) == len(direct) > 0
        torch.testing.assert_close(instances.scores, direct.scores.sort(descending=True).values)
    small = predictor(pixels[::2, ::2, ::-1].copy())
    assert small.image_size == (48, 64)
    assert float(small.pred_boxes.tensor.max()) <= 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jpg"], "photo none.jpg does not exist"),
        (["empty"], "folder empty holds no photo; endings .jpg"),
        (["broken.jpg"], "photo broken.jpg cannot be read"),
        (["a.png", "--vocabulary", "cats"], "no class 'cats'; nearest: 'cat'"),
        (["a.png", "--threshold", "7"], "--threshold: a number, 0 to 1, is expected, given '7'"),
        (["a.png", "--weights", "none.pth"], "weights none.pth do not exist"),
        (["a.png", "--weights", "backbone.pth"], "lack 49 of 224 learned weights, the first is proposal_generator."),
        (["a.png", "--prompt", "a {}."], "--prompt is given without --vocabulary"),
        (["a.png", "--model", "prompt_run"], "prompt_run is the run of a prompt or another method"),
        (["a.png", "--set", "MODEL.WEIGHT=x"], "unknown key 'MODEL.WEIGHT'"),
    ],
)
def test_mistakes_get_one_line(
    folder: Path, run: Callable[..., int], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    (folder / "prompt_run").mkdir()
    (folder / "prompt_run/prompt.safetensors").touch()
    state = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    torch.save({key: value for key, value in state.items() if "backbone" in key}, folder / "backbone.pth")
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("error: ")
    assert not list(folder.glob("out/**/*.json"))


def test_no_weights_is_an_error(folder: Path) -> None:
    with pytest.raises(UserError, match="WEIGHTS is empty"):
        OpenVocabularyPredictor.load(load_config(folder / "tiny.yaml"))


def test_a_run_is_named_by_its_folder(folder: Path, call_tool: Callable[..., tuple[int, str, str]]) -> None:
    cfg = load_config(folder / "tiny.yaml", {"MODEL.WEIGHTS": "first_stage.pth"})
    (folder / "run").mkdir()
    (folder / "run/config.yaml").write_text(cfg.dump())
    (folder / "model_final.pth").rename(folder / "run/model_0000009.pth")
    (folder / "run/last_checkpoint").write_text("model_0000009.pth")
    code, _, errors = call_tool("predict", "--model", "run", "--output", "out", "--threshold", "0", "a.png")
    assert (code, errors) == (0, "")
    assert json.loads((folder / "out/detections.json").read_text())["annotations"]


def test_random_weights_on_purpose(folder: Path, run: Callable[..., int]) -> None:
    assert run("a.png", "--weights", "", "--set", "MODEL.RANDOM_WEIGHTS=True") == 0


MATRIX = "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH"


def test_words_that_are_given_need_no_class_matrix(
    folder: Path, run: Callable[..., int], tiny_model: tuple[Path, Path]
) -> None:
    clip = ["--set", f"MODEL.CLIP.NAME={tiny_model[0]}", "--set", f"MODEL.CLIP.PRETRAINED={tiny_model[1]}"]
    absent = ["a.png", "--set", f"{MATRIX}=absent/lvis_v1_clip_pomp+cname.npy", "--vocabulary", "cat,remote", *clip]
    found = []
    for prompt in (["--prompt", "a {}."], []):  # POMP's prompt cannot be told from the name; its CLIP can
        assert run(*absent, *prompt) == 0
        document = json.loads((folder / "out/detections.json").read_text())
        assert [category["name"] for category in document["categories"]] == ["cat", "remote"]
        found.append([(row["category_id"], row["score"]) for row in document["annotations"]])
    assert found[0] == found[1]
    assert {category for category, _ in found[0]} == {1, 2}


@pytest.mark.parametrize(
    ("matrix", "template", "clip"),
    [
        ("lvis_v1_clip_a+cname.npy", "a {}", "ViT-B-32-quickgelu"),
        ("lvis_v1_clip_pomp+cname.npy", "a {}.", "ViT-B-16-quickgelu"),
    ],
)
def test_words_are_encoded_by_the_clip_of_the_absent_matrix(
    monkeypatch: pytest.MonkeyPatch, tiny_clip: Any, matrix: str, template: str, clip: str
) -> None:
    asked = []
    monkeypatch.setattr("prompt_core.clip.load_clip", lambda name, *arguments: asked.append(name) or tiny_clip)
    cfg = load_config(None, {MATRIX: f"absent/{matrix}"})
    classifier = classifier_of_names(cfg, "cat,remote control")
    expected = TextClassifier.build(tiny_clip, ["cat", "remote control"], [template])
    torch.testing.assert_close(classifier.weight, expected.weight)
    classifier_of_names(cfg, "cat", "an {}")  # Detic's and POMP's CLIP are both 512 wide
    cfg.MODEL.VOCABULARY = "dog"  # the detector did not learn with the matrix
    classifier_of_names(cfg, "cat", "an {}")
    assert asked == [clip, clip, "ViT-B-16-quickgelu"]


def test_without_words_a_missing_matrix_is_named_with_what_brings_it(
    folder: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("a.png", "--set", f"{MATRIX}=datasets/metadata/lvis_v1_clip_pomp+cname.npy") == 2
    assert "lvis_v1_clip_pomp+cname.npy does not exist" in (line := capsys.readouterr().err.strip().splitlines()[-1])
    assert "python tools/fetch.py lvis_v1_clip_pomp+cname.npy" in line
    assert run("a.png", "--set", f"{MATRIX}=own.npy", "--vocabulary", "cat") == 2
    assert "own.npy does not exist" in capsys.readouterr().err


def test_photos_are_resized_as_in_evaluation(folder: Path) -> None:
    overrides = {"INPUT.TEST_INPUT_TYPE": "square", "INPUT.TEST_SIZE": 60}
    predictor = OpenVocabularyPredictor.load(
        load_config(folder / "tiny.yaml", overrides | {"MODEL.WEIGHTS": str(folder / "model_final.pth")})
    )
    seen: list[torch.Size] = []
    predictor.model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    predictor(folder / "a.png")  # 90 high, 120 wide: 45 x 60, padded to a multiple of 32
    assert seen == [torch.Size([1, 3, 64, 64])]


def test_pictures_without_the_photo(folder: Path, run: Callable[..., int]) -> None:
    assert run("a.png", "--no-photo", "--threshold", "1") == 0
    drawn = np.asarray(Image.open(folder / "out/0001_a.png"))
    assert drawn.shape == (90, 120, 3)
    assert (drawn == 235).all()


def test_bad_photos_among_good_ones(folder: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad").mkdir()
    (folder / "bad/cut.png").write_bytes((folder / "a.png").read_bytes()[:999])
    (folder / "bad/red\x1b[31m.jpg").write_text("no photo")
    assert run("bad", "a.png", "photos", "a.png") == 0
    document = json.loads((folder / "out/detections.json").read_text())
    assert [(image["id"], image["file_name"]) for image in document["images"]] == [(3, "a.png"), (4, "photos/b.PNG")]
    assert [row["id"] for row in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
    for row in document["annotations"]:
        assert row["area"] == run_lengths.area(row["segmentation"])
    cut, red, count = capsys.readouterr().err.strip().splitlines()
    assert cut.startswith("left out: photo bad/cut.png cannot be read: ")
    assert red == "left out: photo bad/red\\x1b[31m.jpg cannot be read: no image of a known format"
    assert count == "2 of 4 photos were left out"
    assert {path.name for path in (folder / "out").iterdir()} == {"0003_a.png", "0004_b.png", "detections.json"}
    assert run("bad", "photos", "--strict") == 1
    assert run("bad") == 2


def test_boxes_are_in_the_photo_as_exif_turns_it(folder: Path, run: Callable[..., int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "a.png") as image:
        image.save(folder / "turned.png", exif=exif)
        image.transpose(Image.Transpose.ROTATE_270).save(folder / "upright.png")
    assert run("turned.png", "upright.png") == 0
    document = json.loads((folder / "out/detections.json").read_text())
    assert [(image["height"], image["width"]) for image in document["images"]] == [(120, 90)] * 2
    rows: dict[int, list[Any]] = {1: [], 2: []}
    for row in document["annotations"]:
        rows[row["image_id"]].append((row["bbox"], row["score"], row["segmentation"]))
    assert rows[1] == rows[2] != []


def test_a_killed_run_goes_on_and_ends_with_the_same_files(
    folder: Path,
    start_tool: Callable[..., subprocess.Popen[str]],
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two lists of words: the second goes on, the first, which was done, is not predicted again."""
    random = np.random.default_rng(2)
    for number in range(6):
        pixels = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{number:02d}.png")
    words = ["photos", "--vocabulary", "cat", "--vocabulary", "cat,toy car"]
    base = ["--model", "tiny.yaml", "--weights", "model_final.pth", "--output", "out", "--threshold", "0"]
    process = start_tool("predict", *base, *words, cwd=folder)
    part, lines = folder / "out/2/detections.json.part", 0
    while lines < 3 and process.poll() is None:
        lines = part.read_bytes().count(b"\n") if part.exists() else 0
        time.sleep(0.002)
    process.kill()
    process.communicate()
    done = part.read_bytes().count(b"\n") - 1
    assert 2 <= done < 7
    assert not (folder / "out/2/detections.json").exists()

    predicted = []
    detect = OpenVocabularyPredictor.detect
    monkeypatch.setattr(
        OpenVocabularyPredictor, "detect", lambda self, *given: predicted.append(1) or detect(self, *given)
    )
    assert run(*words) == 0
    assert len(predicted) == 7 - done
    assert run(*words, "--output", "whole") == 0
    files = sorted(path.relative_to(folder / "whole") for path in (folder / "whole").rglob("*") if path.is_file())
    assert len(files) == 2 * 8
    for name in files:
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_other_words_do_not_mix_with_an_unfinished_run(
    folder: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    detect = OpenVocabularyPredictor.detect

    def stop_at_the_second(self: Any, pixels: np.ndarray, threshold: float) -> Any:
        if pixels.shape[0] == 64:
            raise KeyboardInterrupt
        return detect(self, pixels, threshold)

    with monkeypatch.context() as patched:
        patched.setattr(OpenVocabularyPredictor, "detect", stop_at_the_second)
        assert run("a.png", "photos") == 130
    assert run("a.png", "photos", "--threshold", "0.1", "--vocabulary", "cat") == 2
    assert "with other settings (threshold, weights, words)" in capsys.readouterr().err
    assert run("a.png", "photos") == 0


def test_no_mask_is_made_of_what_scores_too_little(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    predictor = OpenVocabularyPredictor.load(load_config("tiny.yaml", {"MODEL.WEIGHTS": "model_final.pth"}))
    pixels = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    heads: Any = predictor.model.roi_heads
    masked, made = [], type(heads).forward_with_given_boxes
    monkeypatch.setattr(
        heads, "forward_with_given_boxes", lambda *given: masked.append(given[1][0].scores) or made(heads, *given)
    )
    everything = predictor.detect(pixels)
    scores = masked.pop()  # also of boxes that are empty once they are cut at the photo's border
    better = len(everything) // 2
    for threshold, count in ((float(everything.scores[better - 1]), better), (1.0, 0)):
        found = predictor.detect(pixels, threshold)
        assert len(found) == count
        assert len(masked[-1]) == int((scores > threshold - 1e-6).sum()) < len(scores)
        assert torch.equal(found.pred_boxes.tensor, everything.pred_boxes.tensor[:count])
        assert torch.equal(found.pred_classes, everything.pred_classes[:count])
        torch.testing.assert_close(found.box_masks, everything.box_masks[:count])
    assert len(predictor.detect(pixels)) == len(everything)  # the model is as it was
