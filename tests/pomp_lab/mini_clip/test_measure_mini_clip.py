"""Measuring built models: the columns of the table, the means over prompts, and the tool as users run it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pomp_lab.mini_clip.box_crops import scored_regions
from pomp_lab.mini_clip.measure import card_prompts, card_targets, evaluate, held_out_classes, measure
from pomp_lab.tables.data_folders import HALVES, photo_half
from pomp_lab.tables.scored_sets import Question, Target
from prompt_core import Clip, PromptedTextEncoder, SoftPrompt, UserError, Vocabulary, load_clip
from prompt_core.data.images import ImageSet
from prompt_core.data.readers.imagenet import tiny_imagenet
from prompt_core.data.readers.table import photo_list
from prompt_core.files import data_root, sha256_of_file

CLASSES, PER_CLASS = 42, 4
ASSETS = Path(str(resources.files("prompt_core"))) / "assets"
RESULTS = Path(__file__).resolve().parents[3] / "docs" / "results"


@pytest.fixture(scope="module")
def wnids() -> list[str]:
    ids = Vocabulary.load("imagenet1k").ids
    assert ids is not None
    return [str(identity) for identity in ids]


def save_picture(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory: pytest.TempPathFactory, wnids: list[str]) -> Path:
    """Validation photos of 42 classes in Tiny-ImageNet's layout."""
    root, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    chosen = wnids[:CLASSES]
    (root / "wnids.txt").write_text("\n".join(reversed(chosen)))
    (root / "words.txt").write_text("".join(f"{wnid}\tthing {row}\n" for row, wnid in enumerate(chosen)))
    lines = []
    for number in range(CLASSES * PER_CLASS):
        save_picture(root / "val" / "images" / f"val_{number}.JPEG", rng)
        lines.append(f"val_{number}.JPEG\t{chosen[number % CLASSES]}\t0\t0\t9\t9\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def photos_root(tmp_path_factory: pytest.TempPathFactory, wnids: list[str]) -> Path:
    """One photo of each tenth class of ImageNet-1K."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    with open(root / "labels.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "wnid"])
        for wnid in wnids[::10]:
            save_picture(root / "images" / f"{wnid}.JPEG", rng)
            table.writerow([f"images/{wnid}.JPEG", wnid])
    return root


def test_halves_are_fixed() -> None:
    keys = [f"val/images/val_{number}.JPEG" for number in range(6)]
    images = ImageSet(["a"], ["a"], np.zeros(6), keys, "", Path())
    tune, report = (photo_half(images, half) for half in HALVES)
    assert tune.keys == [keys[3], keys[5]]
    assert report.keys == [keys[0], keys[1], keys[2], keys[4]]


def test_card_says_what_was_measured() -> None:
    card = (ASSETS / "MINI_MODEL_CARD.md").read_text(encoding="utf-8")
    runs = json.loads((RESULTS / "mini.json").read_text(encoding="utf-8"))["runs"]
    measured = sha256_of_file(ASSETS / "mini.safetensors")
    for name in ("mini", "mini_holdout"):
        table = card[card.index(f"\n`{name}`") :].split("\n\n")[1].splitlines()
        headings, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in table)
        for prompt, *cells in rows:
            run = runs[f"{name}: {prompt}"]
            assert cells == [f"{run[f'{column}/top1']:.1f}" for column in headings[1:]], prompt
            assert name != "mini" or run["_run"]["weights_sha256"] == measured
        assert len(rows) == 6


@pytest.mark.slow
def test_shipped_model_names_photos_and_regions(tmp_path: Path) -> None:
    root = data_root()
    tiny, photos, boxes = (
        root / name for name in ("tiny-imagenet-200", "imagenet_samples", "coco_small/instances_val.json")
    )
    if not all(path.exists() for path in (tiny, photos, boxes)):
        pytest.skip(f"no Tiny-ImageNet, imagenet_samples and coco_small in {root}; POMP_DATA says where")
    shown = evaluate(ASSETS, tiny, photos, "report", tmp_path, scored_regions(boxes, root))["mini"]
    for prompt in ("a photo of a {}.", "{}"):
        assert shown[prompt]["regions 80/top1"] >= 45
    assert shown["a photo of a {}."]["tiny 200/top1"] >= 49
    assert shown["a photo of a {}."]["photos 1000/top1"] >= 62


def columns_of(targets: list[Target]) -> dict[str, tuple[Target, Question]]:
    return {question.dataset: (target, question) for target in targets for question in target.questions}


def test_columns(tiny_root: Path, photos_root: Path, wnids: list[str]) -> None:
    tiny, photos = tiny_imagenet(tiny_root, "val"), photo_list(photos_root)
    columns = columns_of(card_targets(tiny, photos, wnids[:205]))
    expected = {"tiny 42": 168, "base 2": 8, "novel 40": 160, "photos 1000": 100, "held-out 205": 21, "seen 795": 79}
    assert {name: len(target.images_of(question)) for name, (target, question) in columns.items()} == expected
    assert [len(question.candidates) for _, question in columns.values()] == [int(name.split()[-1]) for name in columns]
    for target, question in columns.values():
        shown = target.images_of(question)
        assert set(target.rows[shown.labels]) <= set(question.candidates)
        for label in np.unique(shown.labels):
            assert target.names[int(target.rows[label])] == target.images.names[label]
    held_out, seen = (columns[name][1].candidates for name in ("held-out 205", "seen 795"))
    assert set(held_out) == set(range(205))
    assert not set(held_out) & set(seen)


def test_columns_without_photos_or_held_out_classes(tiny_root: Path) -> None:
    tiny = tiny_imagenet(tiny_root, "val")
    assert list(columns_of(card_targets(tiny, None, ["n01440764"]))) == ["tiny 42", "base 2", "novel 40"]
    columns = columns_of(card_targets(tiny, None, [], {"regions": tiny.subset([0, 1]), "small regions": tiny}))
    assert {name: len(target.images) for name, (target, _) in columns.items() if "regions" in name} == {
        "regions 42": 2,
        "small regions 42": len(tiny),
    }
    with pytest.raises(UserError, match="is not in ImageNet-1K"):
        card_targets(tiny, ImageSet(["a"], ["a"], np.zeros(1), ["a"], "csv:x", Path()), [])


def test_rows_are_means_over_their_prompts(tiny_clip: Clip, tiny_root: Path, tmp_path: Path) -> None:
    targets = card_targets(tiny_imagenet(tiny_root, "val"), None, [])
    subjects = [["this is one {} of many."], SoftPrompt.random(32, 4, std=2.0, seed=1), ["{}"]]
    together = measure(tiny_clip, targets, {"several": subjects, "own": [["{}"]]}, tmp_path)
    alone = [measure(tiny_clip, targets, {"one": [subject]}, tmp_path)["one"] for subject in subjects]
    assert together["own"] == alone[2]
    assert len({tuple(accuracies.values()) for accuracies in alone}) > 1
    for column, mean in together["several"].items():
        assert mean == pytest.approx(sum(accuracies[column] for accuracies in alone) / 3)


def test_random_prompts_have_their_spread() -> None:
    rows = card_prompts(500)
    for std in (0.02, 0.05):
        prompts = rows[f"16 random vectors, std {std} (mean of 5)"]
        contexts = [prompt.context.detach() for prompt in prompts if isinstance(prompt, SoftPrompt)]
        assert [tuple(context.shape) for context in contexts] == [(16, 500)] * 5
        assert all(float(context.std()) == pytest.approx(std, rel=0.05) for context in contexts)
        assert len({float(context[0, 0]) for context in contexts}) == 5


def save_built(folder: Path, stem: str, model: tuple[Path, Path], held_out: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{stem}.json").write_text(model[0].read_text())
    metadata = {"build": json.dumps({"seed": 0, "steps": 1, "held_out": held_out})}
    save_file(load_file(model[1]), folder / f"{stem}.safetensors", metadata)
    return folder / f"{stem}.safetensors"


def test_tool_measures_what_is_built(
    call_tool: Callable[..., tuple[int, str, str]], tiny_model: tuple[Path, Path], tiny_root: Path, tmp_path: Path
) -> None:
    weights = save_built(tmp_path / "built", "mini", tiny_model, [])
    options = ["--tiny-imagenet", tiny_root, "--half", "tune", "--cache", "cache", "--json", "out.json"]
    code, out, error = call_tool("build_mini_clip", "--evaluate", "built", *options, "--threads", "1")
    assert code == 0, error
    results = json.loads((tmp_path / "out.json").read_text())
    assert "--half tune" in results["about"]["command"]
    runs = results["runs"]
    assert {document["_run"]["row"] for document in runs.values()} == set(runs)
    first = runs["mini: {}"]
    assert first["_run"]["versions"]["torch"] == torch.__version__
    assert (first["_run"]["clip"], first["_run"]["weights_sha256"]) == ("mini", sha256_of_file(weights))

    clip = load_clip(tmp_path / "built" / "mini.json", weights)
    images = photo_half(tiny_imagenet(tiny_root, "val"), "tune")
    assert first["_protocol"]["tiny 42"] == {"images": len(images), "candidates": CLASSES, "half": "tune"}
    pixels = torch.stack([clip.preprocess(images.read(row)) for row in range(len(images))])
    features = clip.encode_image(pixels).half().float()  # as the feature cache keeps them
    for template in ("{}", "a photo of a {}."):
        classes = PromptedTextEncoder(clip).encode_texts([template.format(name) for name in images.names])
        right = (features @ classes.T).argmax(1).numpy() == images.labels
        assert right.any()
        assert runs[f"mini: {template}"]["tiny 42/top1"] == pytest.approx(100 * right.mean(), abs=1e-3)
    for name, document in runs.items():
        row = next(line for line in out.splitlines() if name.removeprefix("mini: ") in line)
        assert f"{document['novel 40/top1']:.1f}" in row


def test_tool_refuses_in_one_line(
    call_tool: Callable[..., tuple[int, str, str]], tiny_model: tuple[Path, Path], tiny_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, expected in (
        (["--evaluate", "empty", "--tiny-imagenet", tiny_root], "no mini.safetensors or mini_holdout.safetensors"),
        (["--evaluate", "empty"], "need --tiny-imagenet DIR"),
        (["--steps", "0"], "a whole number, 1 or more"),
        (["--half", "both"], "invalid choice"),
    ):
        code, _, error = call_tool("build_mini_clip", *arguments, "--threads", "1")
        assert code == 2
        assert expected in error
        assert len(error.splitlines()) == 1
    with pytest.raises(UserError, match="does not say which classes were held out"):
        held_out_classes(tiny_model[1])
    assert held_out_classes(save_built(tmp_path, "mini_holdout", tiny_model, ["n1"])) == ["n1"]
