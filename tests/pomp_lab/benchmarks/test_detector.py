"""The detector benchmark measures what it says, changes no result, and derives its ratio from what it measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

pytest.importorskip("detectron2")

from pomp_det.class_matrix import source_of
from pomp_det.classifier import set_classifier, zero_shot_predictors
from pomp_lab.benchmarks import detector as benchmark
from pomp_lab.benchmarks.detector_inputs import matrices_by_count, matrices_by_vocabulary, random_inputs, read_inputs
from prompt_core.errors import UserError

from ...support.detector import TINY, write_config

Call = Callable[..., tuple[int, str, str]]
PARTS = {"backbone", "proposals", "box heads", "class scores", "masks", "pasting", "rest"}


@pytest.fixture
def tiny_config(tmp_path: Path) -> Path:
    """The tiny detector as a configuration file."""
    return write_config(
        tmp_path / "tiny.yaml", TINY | {"INPUT.MIN_SIZE_TEST": 96, "INPUT.MAX_SIZE_TEST": 128, "MODEL.DEVICE": "cpu"}
    )


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(folder / "two.jpg")
    return folder


def median(spread: dict[str, Any]) -> float:
    return float(np.median(spread["all"]))


def test_detector_benchmark(call_tool: Call, tiny_config: Path, photo_folder: Path, tmp_path: Path) -> None:
    import detectron2

    output = tmp_path / "results" / "detector.json"
    options = ["--classes", "20,1203,21843", "--repeats", "3", "--threads", "1", "--output", output]
    code, out, error = call_tool(
        "benchmark_detector", "--config", tiny_config, "--photos", photo_folder, *options, "MODEL.FPN.NORM", "BN"
    )
    assert code == 0, error
    report = json.loads(output.read_text())
    setting = report["set_up"]
    assert setting["command"].startswith("benchmark_detector.py --config")
    assert (setting["weights"], setting["device"], setting["threads"]) == ("random", "cpu", 1)
    assert setting["sizes"] == [[96, 128], [128, 96]]
    assert setting["versions"]["torch"] == torch.__version__
    assert setting["versions"]["detectron2"] == detectron2.__version__
    rows = report["classes"]
    assert [row["classes"] for row in rows] == [20, 1203, 21843]
    assert [row["source"] for row in rows] == [
        "the first 20 of 30 classes of random",
        "1203 random directions",
        "21843 random directions",
    ]
    for row in rows:
        assert len(row["seconds"]["all"]) == 3
        assert row["seconds"]["median"] == pytest.approx(median(row["seconds"]))
        assert set(row["parts"]) == PARTS
        for seconds in row["parts"].values():
            assert len(seconds["all"]) == 3
            assert seconds["min"] > 0
        assert 0 < row["detections"] <= 30
        assert 0 < row["proposals"] <= 40
        assert row["passing_pairs"] <= row["classes"] * row["proposals"]
    ratios = np.divide(rows[2]["seconds"]["all"], rows[1]["seconds"]["all"])
    growth = report["growth"]
    assert growth["measured"] == pytest.approx(np.median(ratios))
    assert growth["met"] == (growth["measured"] <= 1.5)
    assert f"take {growth['measured']:.3f} times the time of 1,203; wanted: at most 1.5" in out
    assert "class scores" in out
    # Each turn visits every number of classes.
    turns = [line.split(" classes, ") for line in error.splitlines() if " classes, " in line]
    assert [int(line[0]) for line in turns] == [20, 1203, 21843] * 3


def test_growth_needs_both_numbers_of_classes() -> None:
    rows = [
        {"classes": 5, "seconds": {"all": [1.0, 2.0, 4.0]}},
        {"classes": 9, "seconds": {"all": [3.0, 2.0, 8.0]}},
    ]
    assert benchmark.growth(rows, 5, 9) == 2.0
    assert benchmark.growth(rows, 5, 8) is None


def test_parts_within_parts_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 13.0, 17.0, 25.0])
    monkeypatch.setattr(benchmark, "clock", lambda device: next(times))
    timer = benchmark.PartTimer(torch.device("cpu"))
    inner = timer.timed(lambda value: value + 1, "masks")
    with timer.part("rest"):
        with timer.part("box heads"):
            assert inner.__name__ == "<lambda>"
        assert next(times) == 17.0
    assert dict(timer.seconds) == {"rest": 1.0 + 12.0, "box heads": 2.0}


@pytest.mark.parametrize("fast", [True, False])
def test_watching_changes_no_result(make_tiny: Callable[..., Any], photo: torch.Tensor, fast: bool) -> None:
    model = make_tiny({"MODEL.ROI_BOX_HEAD.FAST_INFERENCE": fast}).eval()
    timer = benchmark.PartTimer(torch.device("cpu"))
    with torch.inference_mode():
        before = model([{"image": photo}])[0]["instances"]
        with timer.watching(model), timer.part("rest"):
            watched = model([{"image": photo}])[0]["instances"]
        counted = dict(timer.seconds)
        after = model([{"image": photo}])[0]["instances"]
    assert set(counted) == PARTS
    assert all(seconds > 0 for seconds in counted.values())
    assert dict(timer.seconds) == counted  # nothing is watched any more
    assert "forward" not in vars(model.backbone)
    for detections in (watched, after):
        assert len(detections) == len(before) > 0
        assert torch.equal(detections.pred_boxes.tensor, before.pred_boxes.tensor)
        assert torch.equal(detections.pred_masks, before.pred_masks)


def test_what_there_was_to_score_is_counted(make_tiny: Callable[..., Any], photo: torch.Tensor) -> None:
    model = make_tiny({"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05})
    matrices = matrices_by_count(model, [25])
    (row,) = benchmark.measure_classes(model, [{"image": photo}], matrices, 1)
    assert not model.training

    scores: list[torch.Tensor] = []
    predictor = zero_shot_predictors(model)[-1]
    slow = make_tiny({"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05, "MODEL.ROI_BOX_HEAD.FAST_INFERENCE": False}).eval()
    set_classifier(slow, matrices[0])
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        from pomp_det.heads import box_predictor

        original = box_predictor.reference_detections
        patch.setattr(
            box_predictor, "reference_detections", lambda table, *more: scores.append(table) or original(table, *more)
        )
        detections = slow([{"image": photo}])[0]["instances"]
    assert row["passing_pairs"] == int((scores[0][:, :-1] > 0.05).sum()) > 0
    assert (row["classes"], row["proposals"]) == (25, len(scores[0]))
    assert row["detections"] == len(detections)
    assert predictor.cls_score.num_classes == 25  # the last matrix stays
    (row,) = benchmark.measure_classes(slow, [{"image": photo}], matrices, 1)
    assert row["passing_pairs"] is None
    assert row["detections"] == len(detections)


def test_matrices_take_the_detectors_rows_and_continue_alike(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    spread = torch.linspace(0.02, 0.1, 24)
    rows = F.normalize(torch.linspace(-1, 1, 24), dim=0) + spread * torch.randn(30, 24, generator=generator)
    rows = F.normalize(rows, dim=1)
    np.save(tmp_path / "own.npy", rows.numpy())
    model = make_tiny({"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(tmp_path / "own.npy")})
    few, many = matrices_by_count(model, [10, 20000])
    torch.testing.assert_close(few.weight, rows[:10])
    assert source_of(few) == f"the first 10 of 30 classes of {tmp_path / 'own.npy'}"
    assert many.weight.shape == (20000, 24)
    assert len(many.names) == 20000
    torch.testing.assert_close(many.weight.norm(dim=1), torch.ones(20000))
    torch.testing.assert_close(many.weight.mean(dim=0), rows.mean(dim=0), atol=0.03, rtol=0)
    directions = torch.linalg.eigh(rows.T.cov()).eigenvectors
    widest, narrowest = (many.weight @ directions[:, column] for column in (-1, 3))
    assert float(widest.std()) == pytest.approx(float((rows @ directions[:, -1]).std()), rel=0.1)
    assert narrowest.std() < 0.5 * widest.std()


def test_real_vocabularies(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    model = make_tiny({"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 116})
    np.save(tmp_path / "five.npy", np.ones((5, 116), dtype=np.float32))
    coco, five = matrices_by_vocabulary(model, ["coco", str(tmp_path / "five.npy")], "a photo of a {}.")
    assert coco.names[:2] == ["person", "bicycle"]
    assert coco.weight.shape == (80, 116)
    assert source_of(coco) == "80 classes of coco with 'a photo of a {}.', CLIP mini"
    torch.testing.assert_close(coco.weight.norm(dim=1), torch.ones(80))
    assert len(five.weight) == 5
    with pytest.raises(UserError, match="features of width 24, CLIP mini's are 116 wide"):
        matrices_by_vocabulary(make_tiny(), ["coco"], "a {}.")


def test_inputs_are_resized_as_in_evaluation(tiny_config: Path, photo_folder: Path) -> None:
    from pomp_det import load_config

    cfg = load_config(tiny_config)
    for example in random_inputs(cfg, 2):
        assert tuple(example["image"].shape) == (3, 96, 128)
        assert (example["height"], example["width"]) == (480, 640)
        assert example["image"].float().std() > 30
    first, second = random_inputs(cfg, 2)
    assert not torch.equal(first["image"], second["image"])
    assert torch.equal(first["image"], random_inputs(cfg, 1)[0]["image"])
    named, _ = read_inputs(cfg, [photo_folder])
    (alone,) = read_inputs(cfg, [photo_folder / "one.png"])
    assert torch.equal(named["image"], alone["image"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "80,0"], "--classes: a whole number, 1 or more"),
        (["--classes", "80,many"], "given 'many'"),
        (["--repeats", "0"], "--repeats: a whole number, 1 or more"),
        (["--threads", "two"], "--threads: a whole number, 1 or more"),
        (["--classes", "80", "--vocabularies", "coco"], "not both"),
        (["--vocabularies", "coco"], "features of width 24, CLIP mini's are 116 wide"),
        (["--photos", "nowhere.jpg"], "photo nowhere.jpg does not exist"),
        (["--photos", "."], "holds no photo"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--quick"], "--quick"),
        (["MODEL.NO_SUCH_KEY", "1"], "unknown key 'MODEL.NO_SUCH_KEY'"),
        (["MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS", "False"], "no zero-shot classifier"),
    ],
)
def test_bad_input(
    call_tool: Call,
    tiny_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    output = tmp_path / "results.json"
    code, _, error = call_tool(
        "benchmark_detector", "--config", tiny_config, "--output", output, "--images", "1", *arguments
    )
    assert code == 2
    assert message in error
    assert not output.exists()


def test_the_detector_benchmark_says_what_it_needs(call_tool: Call, tiny_config: Path, tmp_path: Path) -> None:
    for given in (["--config", tiny_config], ["--output", tmp_path / "results.json"]):
        code, _, error = call_tool("benchmark_detector", *given)
        assert code == 2
        assert "--config and --output are needed" in error
