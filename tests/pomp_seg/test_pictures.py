"""Colours, legends and the grid of pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")

from PIL import Image

from pomp_lab.picture_grid import CELL, GAP, GridRow, draw_grid
from pomp_seg import load_config
from pomp_seg.data.label_sets import label_set
from pomp_seg.pictures import (
    INK,
    PLAIN,
    class_colour,
    class_shares,
    colour_labels,
    draw_labels,
    draw_legend,
    draw_segmentation,
    legend_entries,
)
from prompt_core.errors import UserError

from .test_predict import save_model

NAMES = ["cat", "sky", "tree"]


def colours_in(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(value) for value in colour) for colour in picture.reshape(-1, 3)}


def test_a_name_has_one_colour_in_every_vocabulary() -> None:
    labels = np.zeros((20, 30), dtype=int)
    labels[:, 15:] = 1
    first, second = colour_labels(labels, ["cat", "sky"]), colour_labels(1 - labels, ["Sky", "cat"])
    assert (first == second).all()
    assert class_colour("Traffic_light") == class_colour("traffic light") != class_colour("cat")


def test_colours_of_a_large_vocabulary_differ() -> None:
    names = label_set("coco_panoptic").vocabulary.names
    colours = np.array([class_colour(name) for name in names], dtype=int)
    assert len(np.unique(colours, axis=0)) == len(names)
    spread = np.abs(colours[:, None] - colours[None]).sum(axis=-1)
    alike = (spread[np.triu_indices(len(names), 1)] < 12).mean()
    assert alike < 0.01


def test_uncoloured_pixels_show_the_photo() -> None:
    labels = np.zeros((40, 40), dtype=int)
    labels[:, 10:20], labels[:, 20:30], labels[:, 30:] = 1, 255, -1
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    before = photo.copy()
    drawn = colour_labels(labels, NAMES, photo, [False, True, False])
    assert (photo == before).all()
    assert (drawn[:, 10:] == photo[:, 10:]).all()  # background, ignored, no class: also without lines between them
    expected = 0.6 * np.array(class_colour("cat")) + 0.4 * photo[:, :9]
    assert np.abs(drawn[:, :9] - expected).max() <= 1
    assert (drawn[:, 9] == INK).all()
    assert colours_in(colour_labels(labels, NAMES)[:, 21:]) == {PLAIN}


def test_legend_has_what_occurs_most_pixels_first() -> None:
    labels = np.full((10, 10), 2)
    labels[0, :3], labels[5] = 0, 255
    shares = class_shares(labels, 3)
    assert shares == [(2, pytest.approx(87 / 90)), (0, pytest.approx(3 / 90))]
    assert legend_entries(shares, NAMES) == [(2, "tree  96.7 %"), (0, "cat  3.3 %")]
    assert legend_entries([(0, 0.9), (1, 0.0999), (2, 0.0001)], NAMES, most=1) == [
        (0, "cat  90.0 %"),
        (None, "2 more  10.0 %"),
    ]
    assert legend_entries([(0, 0.0001)], NAMES) == [(0, "cat  < 0.1 %")]
    colours = colours_in(draw_legend(legend_entries(shares, NAMES), NAMES, 12))
    assert {class_colour("tree"), class_colour("cat")} <= colours
    assert class_colour("sky") not in colours
    assert class_colour("cat") not in colours_in(draw_legend(legend_entries(shares, NAMES), NAMES, 12, [True] * 3))


def test_names_are_written_where_there_is_room() -> None:
    labels = np.zeros((80, 200), dtype=int)
    labels[40:44, 50:54] = 1
    drawn, bare = draw_labels(labels, NAMES, 11), colour_labels(labels, NAMES)
    changed = (drawn != bare).any(axis=-1)
    assert changed.any()
    assert not changed[40:44, 50:54].any()  # too small for letters
    assert (draw_segmentation(labels, NAMES)[:80, :200] == drawn).all()
    assert draw_segmentation(np.zeros((3, 2), dtype=int), NAMES).shape[0] > 3  # the legend is higher


def test_grid_has_a_column_for_each_map() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    maps = [np.zeros((60, 90), int), np.ones((60, 90), int)]
    with_photo = draw_grid([GridRow(maps, photo)], ["photo", "truth", "ours"], NAMES)
    without = draw_grid([GridRow(maps)] * 2, ["truth", "ours"], NAMES)
    assert with_photo.shape[1] - without.shape[1] == CELL + GAP
    last = without[-CELL * 60 // 90 :]
    assert tuple(last[5, 5]) == class_colour("cat")
    assert tuple(last[5, CELL + GAP + 5]) == class_colour("sky")
    legend = colours_in(last[:, 2 * (CELL + GAP) :])
    assert {class_colour("cat"), class_colour("sky")} <= legend
    assert class_colour("tree") not in legend
    with pytest.raises(UserError, match="3 pictures was given with 2 names"):
        draw_grid([GridRow(maps, photo)], ["truth", "ours"], NAMES)


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Any]) -> Path:
    """Five photos with labels, and a run of a segmenter."""
    folder, random = tmp_path_factory.mktemp("grid"), np.random.default_rng(0)
    for number in range(5):
        for kind, values in (("photos", (48, 64, 3)), ("labels", (48, 64))):
            (folder / kind).mkdir(exist_ok=True)
            pixels = random.integers(0, 3 if kind == "labels" else 256, values, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"p{number}.png")
    (folder / "names.txt").write_text("cat\nsky\ntree\n", encoding="utf-8")
    (folder / "run").mkdir()
    rows = [["own", "labels", "photos", "names.txt"]]
    cfg = load_config(None, save_model(folder / "run", tiny, {}, "model_final") | {"DATASETS.FILES": rows})
    cfg.MODEL.WEIGHTS = ""
    (folder / "run/config.yaml").write_text(cfg.dump(), encoding="utf-8")
    (folder / "run/last_checkpoint").write_text("model_final.pth", encoding="utf-8")
    return folder


@pytest.fixture
def run_folder(saved_run: Path, tmp_path: Path) -> Path:
    """A copy of these files."""
    shutil.copytree(saved_run, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_grid_tool(run_folder: Path, call_tool: Callable[..., tuple[int, str, str]]) -> None:
    base = ["--dataset", "own", "--output", "grid.png", "--weights", "ours=run"]
    code, out, _ = call_tool("segmentation_grid", *base, "--images", "2")
    assert (code, out.strip()) == (0, "grid.png: p1, p3")
    whole = np.asarray(Image.open(run_folder / "grid.png"))
    more = ["--config", "run/config.yaml", "--weights", "run/model_final.pth", "--no-photo", "--images", "p4,p0"]
    code, out, _ = call_tool("segmentation_grid", *base, *more)
    assert (code, out.strip()) == (0, "grid.png: p4, p0")
    drawn = np.asarray(Image.open(run_folder / "grid.png"))
    assert drawn.shape == whole.shape  # truth and two predictions; photo, truth and one
    cells = drawn[-CELL * 48 // 64 :]
    assert (cells[:, CELL + GAP : 2 * CELL + GAP] == cells[:, 2 * (CELL + GAP) : 3 * CELL + 2 * GAP]).all()
    assert not list(run_folder.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere"], "--weights nowhere is not the folder of a run; give --config"),
        (["--weights", "ours=photos"], "--weights photos holds no run"),
        (["--weights", "run", "--images", "9"], "--images is 9; data set 'own' has 5"),
        (["--weights", "run", "--images", "p9"], "data set 'own' has no image 'p9'; nearest: 'p"),
        (["--weights", "run", "--images", ","], "a number of images or their ids"),
        (["--weights", "run", "--dataset", "owl"], "data set 'owl' is not registered; nearest: 'own'"),
        (["--weights", "run", "--output", "photos"], "cannot write photos: it is a folder"),
    ],
)
def test_mistakes_get_one_line(
    run_folder: Path, arguments: list[str], message: str, call_tool: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, errors = call_tool("segmentation_grid", "--dataset", "own", "--output", "grid.png", *arguments)
    assert code == 2
    assert message in errors.strip().splitlines()[-1]
    assert not (run_folder / "grid.png").exists()
