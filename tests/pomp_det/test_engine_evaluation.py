"""Evaluation by the training tool: test sets and their classes, scoring again, several processes, mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")
pytest.importorskip("hotcoco")

from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_det import build_detector, load_config
from pomp_det.checks import register_configured
from pomp_det.evaluation.evaluate import evaluate_detector
from pomp_det.task import detection_task
from pomp_engine import run
from prompt_core import TextClassifier, UserError
from prompt_core.evaluation.protocol import read_metrics

from ..support.detector_run import CATEGORIES, make_config, make_data, tiny_settings

ROOT = Path(__file__).resolve().parents[2]
NAMES = [category["name"] for category in CATEGORIES]


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    make_data(tmp_path)
    rows = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    TextClassifier(rows, NAMES, {}).save(tmp_path / "classes.safetensors")
    yield tmp_path
    for name in ("tiny", "again"):
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def configured(folder: Path, **changed: Any) -> Any:
    cfg = load_config(None, tiny_settings(folder, **changed))
    register_configured(cfg)
    return cfg


def with_classes(folder: Path) -> dict[str, Any]:
    return {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(folder / "classes.safetensors")}


def save_detector(folder: Path, **changed: Any) -> Path:
    cfg = configured(folder, **with_classes(folder), **changed)
    torch.manual_seed(2)
    torch.save({"model": build_detector(cfg).state_dict()}, folder / "detector.pth")
    return folder / "detector.pth"


def detections(folder: Path, dataset: str = "tiny") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        (folder / f"run/inference_{dataset}/coco_instances_results.json").read_text()
    )
    return rows


def test_train_evaluate_and_score_again(folder: Path) -> None:
    cfg = configured(folder, **with_classes(folder), **{"SOLVER.MAX_ITER": 2})
    results = run.train(detection_task(), cfg)
    assert set(results["tiny"]) == {"bbox", "segm"}
    document = json.loads((folder / "run/metrics.json").read_text())
    assert document["tiny/box_AP"] == pytest.approx(results["tiny"]["bbox"]["AP"])
    assert document["_protocol"]["tiny"]["metric"] == "COCO AP"
    (folder / "run/metrics.json").unlink()
    again = run.score(detection_task(), cfg)
    for task in ("bbox", "segm"):
        np.testing.assert_equal(again["tiny"][task], results["tiny"][task])
    by_reference = run.score(detection_task("reference"), cfg)
    np.testing.assert_allclose(by_reference["tiny"]["bbox"]["AP"], results["tiny"]["bbox"]["AP"], atol=1e-9)
    assert "pycocotools" in json.loads((folder / "run/metrics.json").read_text())["_protocol"]["tiny"]["scorer"]


def test_masks_are_never_pasted_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = configured(folder, **with_classes(folder), **{"MODEL.WEIGHTS": str(save_detector(folder))})
    model = build_detector(cfg).eval()
    with monkeypatch.context() as together:
        together.setattr("pomp_det.evaluation.evaluate.with_box_masks", lambda model: model)
        evaluate_detector(cfg, model)
    expected = detections(folder)
    monkeypatch.setattr("detectron2.structures.masks.ROIMasks.to_bitmasks", None)
    evaluate_detector(cfg, model)
    assert detections(folder) == expected
    assert "'counts'" in str(expected)


def test_an_evaluation_amid_the_training_changes_nothing_in_it(folder: Path) -> None:
    weights = []
    for name, period in (("plain", 0), ("periodic", 2)):
        changed = {"OUTPUT_DIR": str(folder / name), "TEST.EVAL_PERIOD": period, "SOLVER.MAX_ITER": 3}
        cfg = configured(folder, **with_classes(folder), **changed)
        run.train(detection_task(), cfg)
        weights.append(torch.load(folder / name / "model_final.pth", weights_only=True)["model"])
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    lines = [json.loads(line) for line in (folder / "periodic/log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "tiny/box_AP" in line] == [1]


def test_the_run_in_the_folder_is_evaluated_unless_weights_are_given(folder: Path) -> None:
    cfg = configured(folder, **with_classes(folder), **{"SOLVER.MAX_ITER": 1})
    run.train(detection_task(), cfg)
    trained = detections(folder)
    run.evaluate(detection_task(), cfg)
    assert detections(folder) == trained
    run.evaluate(detection_task(), cfg, weights=str(save_detector(folder)))
    assert detections(folder) != trained
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS is empty and .* holds no run"):
        run.evaluate(detection_task(), configured(folder, OUTPUT_DIR=str(folder / "nothing")))
    state = torch.load(folder / "detector.pth", weights_only=True)["model"]
    torch.save({key: value for key, value in state.items() if key.startswith("backbone.")}, folder / "backbone.pth")
    with pytest.raises(
        UserError, match=r"backbone.pth lack .* learned weights, the first is .*; give the checkpoint of"
    ):
        run.evaluate(detection_task(), cfg, weights=str(folder / "backbone.pth"))


def test_every_test_set_gets_its_classes(folder: Path) -> None:
    """The second set numbers the categories otherwise: only with its own rows the detections agree."""
    document = json.loads((folder / "boxes.json").read_text())
    turned = {3: 9, 5: 3, 9: 5}
    for category in document["categories"]:
        category["id"] = turned[category["id"]]
    for annotation in document["annotations"]:
        annotation["category_id"] = turned[annotation["category_id"]]
    (folder / "again.json").write_text(json.dumps(document))
    classifier = TextClassifier.load(folder / "classes.safetensors")
    order = [1, 2, 0]
    np.save(folder / "again.npy", classifier.weight[order].numpy())
    np.save(folder / "first.npy", classifier.weight.numpy())
    (folder / "again.names.json").write_text(json.dumps({"names": [NAMES[row] for row in order]}))
    files = [["tiny", str(folder / "boxes.json"), str(folder)], ["again", str(folder / "again.json"), str(folder)]]
    weights = str(save_detector(folder))
    cfg = configured(
        folder,
        **with_classes(folder),
        **{"DATASETS.FILES": files, "DATASETS.TEST": ["tiny", "again"], "MODEL.RESET_CLS_TESTS": True,
           "MODEL.TEST_CLASSIFIERS": [str(folder / "first.npy"), str(folder / "again.npy")],
           "MODEL.TEST_NUM_CLASSES": [3, 3]},
    )  # fmt: skip
    run.evaluate(detection_task(), cfg, weights=weights)
    first, second = detections(folder), detections(folder, "again")
    assert len({detection["category_id"] for detection in first}) == 3
    key = ("image_id", "score", "category_id")
    expected = sorted(
        (detection["image_id"], detection["score"], turned[detection["category_id"]]) for detection in first
    )
    assert sorted(tuple(detection[name] for name in key) for detection in second) == expected
    cfg.MODEL.TEST_NUM_CLASSES = [3, 4]
    with pytest.raises(UserError, match=r"again.npy has 3 classes, MODEL.TEST_NUM_CLASSES says 4"):
        run.evaluate(detection_task(), cfg, weights=weights)
    cfg.MODEL.TEST_CLASSIFIERS = cfg.MODEL.TEST_CLASSIFIERS[:1]
    with pytest.raises(UserError, match="1 TEST_CLASSIFIERS and 2 TEST_NUM_CLASSES for 2 data sets"):
        run.evaluate(detection_task(), cfg, weights=weights)


def test_the_model_keeps_its_classes_after_a_swap(folder: Path) -> None:
    cfg = configured(folder, **with_classes(folder))
    model = build_detector(cfg)
    before = model.roi_heads.box_predictor[0].cls_score.zs_weight.clone()
    np.save(folder / "other.npy", np.random.default_rng(0).normal(size=(3, 24)).astype(np.float32))
    cfg.MODEL.RESET_CLS_TESTS, cfg.MODEL.TEST_NUM_CLASSES = True, [3]
    cfg.MODEL.TEST_CLASSIFIERS = [str(folder / "other.npy")]
    evaluate_detector(cfg, model.eval())
    torch.testing.assert_close(model.roi_heads.box_predictor[0].cls_score.zs_weight, before)
    assert model.roi_heads.class_names == NAMES


@pytest.mark.parametrize("oracle", ["boxes", "classes", "vocabulary"])
def test_oracles_have_their_own_files(folder: Path, oracle: str) -> None:
    weights = str(save_detector(folder))
    cfg = configured(folder, **with_classes(folder))
    plain = run.evaluate(detection_task(), cfg, weights=weights)
    perfect = run.evaluate(detection_task(oracle=oracle), cfg, weights)
    assert perfect["tiny"]["bbox"]["AP"] >= plain["tiny"]["bbox"]["AP"]
    document = json.loads((folder / f"run/metrics_oracle_{oracle}.json").read_text())
    assert document["_protocol"]["tiny"]["oracle"] == oracle
    assert "oracle" not in json.loads((folder / "run/metrics.json").read_text())["_protocol"]["tiny"]
    np.testing.assert_equal(run.score(detection_task(oracle=oracle), cfg), perfect)


def test_masks_are_skipped_where_the_annotations_have_none(folder: Path) -> None:
    document = json.loads((folder / "boxes.json").read_text())
    for annotation in document["annotations"]:
        del annotation["segmentation"]
    (folder / "boxes.json").write_text(json.dumps(document))
    weights = str(save_detector(folder))
    cfg = configured(folder, **with_classes(folder))
    assert run.evaluate(detection_task(), cfg, weights=weights)["tiny"]["segm"]["AP"] == 0
    cfg.TEST.MASKS_WITHOUT_GROUND_TRUTH = "skip"
    assert set(run.evaluate(detection_task(), cfg, weights=weights)["tiny"]) == {"bbox"}


def tool(folder: Path, *arguments: str, start: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [*(start or [sys.executable]), str(ROOT / "tools/train_net.py"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever a test sets, the number of threads comes back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_two_processes_train_and_evaluate_as_one_does(
    folder: Path, call_tool: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(make_config(folder, **with_classes(folder), **{"SOLVER.MAX_ITER": 3}))
    two = ["--config", config, "--output", "two", "--num-gpus", "0", "--num-processes", "2"]
    trained = tool(folder, *two)
    assert trained.returncode == 0, trained.stderr
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the tool hides the GPUs from what follows
    torch.set_num_threads(1)  # as in each of the processes
    evaluation = ["--config", config, "--output", folder / "one", "--num-gpus", "0", "--eval-only"]
    assert call_tool("train_net", *evaluation, "MODEL.WEIGHTS", folder / "two/model_final.pth")[0] == 0
    results = "inference_tiny/coco_instances_results.json"
    assert (folder / "one" / results).read_bytes() == (folder / "two" / results).read_bytes()
    ranks = sorted(path.name for path in (folder / "two/inference_tiny/predictions").glob("rank*"))
    assert ranks == ["rank_00000.jsonl", "rank_00001.jsonl"]
    numbers = [read_metrics(folder / name / "metrics.json") for name in ("one", "two")]
    assert {key: value for key, value in numbers[0].items() if key != "_run"} == {
        key: value for key, value in numbers[1].items() if key != "_run"
    }
    # A mistake is reported once, in one line, by several processes too.
    again = tool(folder, *two)
    assert again.returncode == 2
    assert again.stderr.strip().splitlines()[-1].startswith("error: two already holds a run; add --resume")
    assert again.stderr.count("error:") == 1


def test_torchrun_starts_the_processes(folder: Path) -> None:
    config = str(make_config(folder, **with_classes(folder), **{"SOLVER.MAX_ITER": 2, "DATASETS.TEST": []}))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = tool(folder, "--config", config, start=start)
    assert done.returncode == 0, done.stderr
    assert (folder / "run/model_final.pth").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x"], "no configuration; give --config FILE"),
        (["--config", "tiny.yaml", "--resume", "--eval-only"], "--resume is for training"),
        (["--config", "tiny.yaml", "--num-gpus", "9"], "--num-gpus is 9"),
        (["--config", "tiny.yaml", "--num-processes", "0"], "--num-processes: a whole number, 1 or more"),
        (["--config", "tiny.yaml", "--score-only"], "predictions"),
        (["--config", "tiny.yaml", "SOLVER.MAXITER", "3"], "unknown key 'SOLVER.MAXITER'"),
        (["--config", "tiny.yaml", "--oracle", "box"], "invalid choice: 'box'"),
    ],
)
def test_mistakes_on_the_command_line(
    folder: Path, arguments: list[str], message: str, call_tool: Callable[..., tuple[int, str, str]]
) -> None:
    make_config(folder, **with_classes(folder))
    code, _, error = call_tool("train_net", *arguments)
    assert code == 2
    last = error.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
