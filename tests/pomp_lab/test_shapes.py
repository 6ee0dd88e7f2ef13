"""The embedded shapes data set: what is written is deterministic, consistent and truly federated."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pomp_lab.shapes import render as shapes_render
from pomp_lab.shapes.annotations import semantic_map
from pomp_lab.shapes.classes import class_names, long_tail, sample_classes, shape_classes
from pomp_lab.shapes.facts import class_rows, shape_options
from pomp_lab.shapes.generate import build_shapes
from pomp_lab.shapes.masks import encode_run_lengths, mask_box, mask_polygons
from pomp_lab.shapes.options import (
    VAL_IMAGE_IDS,
    ShapesOptions,
    classification_classes,
    classification_image,
    scene,
)
from pomp_lab.shapes.outlines import OUTLINES
from pomp_lab.shapes.variants import VARIANTS
from prompt_core.errors import UserError

from ..support import hostile

ROW = {"id": 1, "name": "a", "split": "base", "colour": "red", "pattern": "plain", "shape": "disc"}
SMALL = ShapesOptions(
    classification_classes=10, train_images_per_class=2, val_images_per_class=1, classification_size=48,
    scenes=50, val_scenes=12, scene_size=96, masks="rle",
)  # fmt: skip


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def decode_run_lengths(encoded: dict[str, Any]) -> np.ndarray:
    values = np.arange(len(encoded["counts"])) % 2 == 1
    return np.repeat(values, encoded["counts"]).reshape(encoded["size"], order="F")


def load(folder: Path, name: str) -> Any:
    return json.loads((folder / "annotations" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "set"
    assert build_shapes(folder, SMALL)
    return folder


# Names and the long tail.


def test_names_are_many_unique_sorted_lower_case_words() -> None:
    names = class_names()
    assert len(names) >= 1000
    assert len(set(names)) == len(names)
    assert names == sorted(names)
    assert all(word.isascii() and word.isalpha() and word.islower() for name in names for word in name.split(" "))
    assert "red striped star" in names
    # Readers of folders sort them by name: both orders must agree, or labels would be mixed up.
    folders = [item.folder for item in shape_classes()]
    assert folders == sorted(folders)
    assert [item.id for item in shape_classes()] == list(range(len(names)))


def test_groups_have_the_proportions_of_lvis_and_the_weights_its_thresholds() -> None:
    groups, weights = long_tail(1203)
    assert Counter(groups) == {"f": 405, "c": 461, "r": 337}
    assert groups == sorted(groups, key="fcr".index)
    assert (np.diff(weights) < 0).all()
    for group, low, high in (("f", 100, 1000), ("c", 10, 100), ("r", 1, 10)):
        part = weights[[g == group for g in groups]]
        assert low <= part.min() <= part.max() <= high
    # The claim of the docstring: expected counts reach the thresholds at about 147 objects per class.
    assert weights.mean() == pytest.approx(147, rel=0.02)


def test_seed_decides_which_classes_are_rare_but_not_the_names() -> None:
    first, second = shape_classes(seed=0), shape_classes(seed=1)
    assert [item.name for item in first] == [item.name for item in second]
    assert {item.name for item in first if item.novel} != {item.name for item in second if item.novel}


@pytest.mark.parametrize("count", [10, 57, 200, 254])
def test_a_sample_keeps_the_base_novel_proportion_and_grows_by_adding(count: int) -> None:
    everything = shape_classes()
    share = sum(item.novel for item in everything) / len(everything)
    sample = sample_classes(everything, count, seed=0)
    assert len(sample) == count
    assert sum(item.novel for item in sample) == pytest.approx(share * count, abs=1)
    assert {item.name for item in sample} < {item.name for item in sample_classes(everything, count + 1, seed=0)}
    vocabulary = shape_classes(count)
    assert [item.id for item in vocabulary] == list(range(count))
    assert {(item.name, item.frequency) for item in vocabulary} == {(item.name, item.frequency) for item in sample}


# Outlines and masks.


@pytest.mark.parametrize("name", sorted(OUTLINES))
def test_outline_fits_its_circle_and_changes_no_faster_than_distance(name: str) -> None:
    step = 0.02
    axis = np.arange(-1.2, 1.2, step)
    x, y = np.meshgrid(axis, axis)
    field = OUTLINES[name](x, y)
    inside = field <= 0
    assert 0.15 < inside.mean() * 2.4**2 < 3.2
    assert np.hypot(x, y)[inside].max() < 1.08
    assert max(np.abs(np.diff(field, axis=0)).max(), np.abs(np.diff(field, axis=1)).max()) < 1.15 * step


masks = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.booleans()).filter(np.any)


@given(masks)
def test_run_lengths_round_trip_and_box_is_tight(mask: np.ndarray) -> None:
    encoded = encode_run_lengths(mask)
    assert sum(encoded["counts"]) == mask.size
    assert (decode_run_lengths(encoded) == mask).all()
    x, y, width, height = mask_box(mask)
    assert mask[y : y + height, x : x + width].sum() == mask.sum()
    assert mask[y].any()
    assert mask[y + height - 1].any()
    assert mask[:, x].any()
    assert mask[:, x + width - 1].any()


def even_odd_fill(polygons: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres are inside any polygon, by crossings of a ray to the left with vertical edges."""
    filled = np.zeros(shape, dtype=bool)
    for polygon in polygons:
        points = np.asarray(polygon).reshape(-1, 2)
        crossings = np.zeros(shape, dtype=int)
        for (x, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            assert x == x1 or y0 == y1
            crossings[min(y0, y1) : max(y0, y1), x:] += 1
        assert not (filled & (crossings % 2 == 1)).any()
        filled |= crossings % 2 == 1
    return filled


@given(masks)
def test_polygons_cover_the_mask_exactly_without_overlap(mask: np.ndarray) -> None:
    polygons = mask_polygons(mask)
    assert all(len(polygon) >= 8 for polygon in polygons)
    assert (even_odd_fill(polygons, mask.shape) == mask).all()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(masks)
@settings(max_examples=200)
def test_pycocotools_decodes_run_lengths_and_polygons_to_the_same_mask(mask: np.ndarray) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    height, width = mask.shape
    run_lengths = coco_mask.frPyObjects(encode_run_lengths(mask), height, width)
    assert (coco_mask.decode(run_lengths) == mask).all()
    polygons = coco_mask.merge(coco_mask.frPyObjects(mask_polygons(mask), height, width))
    assert (coco_mask.decode(polygons) == mask).all()


# The folder.


def test_same_options_give_the_same_bytes_with_any_number_of_processes(tmp_path: Path) -> None:
    few = ShapesOptions(**{**vars(SMALL), "classification_classes": 4, "scenes": 10, "val_scenes": 2})
    for name, options, workers in (
        ("one", few, 1),
        ("two", few, 2),
        ("other", ShapesOptions(**{**vars(few), "seed": 1}), 1),
    ):
        assert build_shapes(tmp_path / name, options, workers=workers)
    assert tree_hash(tmp_path / "two") == tree_hash(tmp_path / "one")
    assert tree_hash(tmp_path / "other") != tree_hash(tmp_path / "one")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one", "other", "two"]


def test_larger_set_begins_with_the_smaller_one(made: Path, tmp_path: Path) -> None:
    larger = {"classification_classes": 12, "train_images_per_class": 3, "scenes": 53}
    build_shapes(tmp_path / "larger", ShapesOptions(**{**vars(SMALL), **larger}))
    images = [path.relative_to(made) for path in made.rglob("*.png")]
    assert len(images) > 100
    assert all((made / image).read_bytes() == (tmp_path / "larger" / image).read_bytes() for image in images)
    few, many = load(made, "lvis_train"), load(tmp_path / "larger", "lvis_train")
    assert many["images"][:50] == few["images"]
    assert many["annotations"][: len(few["annotations"])] == few["annotations"]


def test_classification_folders_hold_base_for_training_and_both_for_validation(made: Path) -> None:
    classes = json.loads((made / "classes.json").read_text())["classes"]
    assert [row["name"] for row in classes] == class_names()
    assert (made / "class_names.txt").read_text().splitlines() == class_names()
    assert all((row["split"] == "novel") == (row["frequency"] == "r") for row in classes)
    pictured = {row["folder"]: row["split"] for row in classes if row["classification"]}
    train = {path.name for path in (made / "classification" / "train").iterdir()}
    val = {path.name for path in (made / "classification" / "val").iterdir()}
    assert len(val) == 10
    assert val == set(pictured)
    assert train == {folder for folder, split in pictured.items() if split == "base"}
    assert 0 < len(train) < len(val)
    assert all(len(list(path.iterdir())) == 2 for path in (made / "classification" / "train").iterdir())
    with Image.open(next((made / "classification" / "train").rglob("*.png"))) as image:
        assert (image.size, image.mode) == ((48, 48), "RGB")


def test_training_images_never_paint_a_novel_class_even_as_distractor(monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[bool] = []
    paint = shapes_render.paint

    def recording_paint(image: np.ndarray, shape: shapes_render.PlacedShape) -> None:
        painted.append(shape.shape_class.novel)
        paint(image, shape)

    monkeypatch.setattr(shapes_render, "paint", recording_paint)
    shown = next(item for item in classification_classes(SMALL) if not item.novel)
    for index in range(60):
        classification_image(SMALL, "train", shown, index)
    assert len(painted) > 80
    assert not any(painted)
    for index in range(60):
        classification_image(SMALL, "val", shown, index)
    assert any(painted)


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_areas_masks_and_semantic_maps_agree(made: Path, split: str) -> None:
    data = load(made, f"instances_{split}")
    assert [category["id"] for category in data["categories"]] == list(range(1, len(class_names()) + 1))
    assert [category["name"] for category in data["categories"]] == class_names()
    assert [a["id"] for a in data["annotations"]] == list(range(1, len(data["annotations"]) + 1))
    assert len(data["images"]) == len(list((made / "scenes" / split).iterdir())) == (50 if split == "train" else 12)
    hidden = 0
    for image in data["images"]:
        assert (image["id"] > VAL_IMAGE_IDS) == (split == "val")
        with Image.open(made / "scenes" / split / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (96, 96)
        with Image.open(made / "semantic" / split / image["file_name"]) as picture:
            assert picture.mode == "I;16"
            semantic = np.asarray(picture)
        expected = np.full((96, 96), 65535)
        annotations = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        assert 1 <= len(annotations) <= 8
        claimed = np.zeros((96, 96), dtype=int)
        for annotation in annotations:
            mask = decode_run_lengths(annotation["segmentation"])
            assert annotation["iscrowd"] == 0
            assert annotation["area"] == mask.sum() >= 0.001 * 96 * 96
            assert annotation["bbox"] == mask_box(mask)
            expected[mask] = annotation["category_id"] - 1
            claimed += mask
        # Visible parts: no pixel belongs to two objects.
        assert claimed.max() == 1
        assert (semantic == expected).all()
        index = (image["id"] - 1) % VAL_IMAGE_IDS
        objects = scene(SMALL, split, index).objects
        hidden += int(shapes_render.visible_owner(objects, 96)[1].sum() - claimed.sum())
    assert hidden > 0


def test_what_a_mask_covers_is_what_was_painted_there() -> None:
    # A plain object's pixels have its colour: the mask and the picture are made by separate code.
    checked = 0
    for index in range(60):
        drawn = scene(ShapesOptions(scene_size=128), "val", index)
        for number, placed in enumerate(drawn.objects):
            if placed.shape_class.pattern == "plain" and placed.shape_class.colour == "red":
                red, green, blue = np.median(drawn.image[drawn.mask(number)], axis=0)
                assert red > 150 > 80 > max(green, blue)
                checked += 1
    assert checked >= 3


def test_semantic_map_has_8_bits_up_to_255_classes() -> None:
    few = ShapesOptions(classes=255, scene_size=64)
    drawn = scene(few, "val", 0)
    narrow, wide = semantic_map(drawn, 255), semantic_map(drawn, 256)
    assert (narrow.dtype, wide.dtype) == (np.uint8, np.uint16)
    assert ((narrow == 255) == (drawn.owner < 0)).all()
    assert ((wide == 65535) == (drawn.owner < 0)).all()
    assert (narrow[drawn.owner >= 0] == wide[drawn.owner >= 0]).all()


@pytest.mark.parametrize("split", ["train", "val"])
def test_federated_fields_say_the_truth(made: Path, split: str) -> None:
    lvis, coco = load(made, f"lvis_{split}"), load(made, f"instances_{split}")
    assert [a["id"] for a in lvis["images"]] == [a["id"] for a in coco["images"]]
    every = {a["id"]: a for a in coco["annotations"]}
    left_out = dict(every)
    for annotation in lvis["annotations"]:
        twin = left_out.pop(annotation["id"])
        assert {key: annotation[key] for key in ("image_id", "category_id", "bbox", "area")} == {
            key: twin[key] for key in ("image_id", "category_id", "bbox", "area")
        }
        mask = even_odd_fill(annotation["segmentation"], (96, 96))
        assert (mask == decode_run_lengths(twin["segmentation"])).all()
    incomplete = {(a["image_id"], a["category_id"]) for a in left_out.values()}
    annotated = {(a["image_id"], a["category_id"]) for a in lvis["annotations"]}
    assert incomplete == {(i["id"], c) for i in lvis["images"] for c in i["not_exhaustive_category_ids"]}
    assert incomplete <= annotated
    for image in lvis["images"]:
        present = {a["category_id"] for a in every.values() if a["image_id"] == image["id"]}
        negative = image["neg_category_ids"]
        assert len(negative) == len(set(negative)) == 12
        assert not present & set(negative)
        assert (made / image["coco_url"]).is_file()
    if split == "train":
        assert incomplete


def test_lvis_categories_count_the_training_annotations(made: Path) -> None:
    train, val = load(made, "lvis_train"), load(made, "lvis_val")
    assert train["categories"] == val["categories"]
    images = Counter(category for _, category in {(a["image_id"], a["category_id"]) for a in train["annotations"]})
    instances = Counter(a["category_id"] for a in train["annotations"])
    for category, item in zip(train["categories"], shape_classes(), strict=True):
        assert category["image_count"] == images[category["id"]]
        assert category["instance_count"] == instances[category["id"]]
        assert (category["name"], category["frequency"]) == (item.folder, item.frequency)
        assert category["synonyms"][0] == category["name"]
        assert {"synset", "def"} <= set(category)
    assert len({category["synset"] for category in train["categories"]}) == len(class_names())


def test_norare_keeps_images_and_categories_but_no_rare_annotation(made: Path) -> None:
    train, norare = load(made, "lvis_train"), load(made, "lvis_train_norare")
    assert norare["images"] == train["images"]
    assert norare["categories"] == train["categories"]
    rare = {category["id"] for category in train["categories"] if category["frequency"] == "r"}
    removed = [a for a in train["annotations"] if a not in norare["annotations"]]
    assert removed
    assert {a["category_id"] for a in removed} <= rare
    assert not {a["category_id"] for a in norare["annotations"]} & rare
    assert len(norare["annotations"]) + len(removed) == len(train["annotations"])


def test_training_scenes_follow_the_tail_and_validation_scenes_do_not() -> None:
    options = ShapesOptions(scene_size=64)
    drawn = {
        split: Counter(
            placed.shape_class.frequency for index in range(150) for placed in scene(options, split, index).objects
        )
        for split in ("train", "val")
    }
    train, val = drawn["train"], drawn["val"]
    assert train["f"] / train.total() == pytest.approx(0.89, abs=0.05)
    assert train["f"] > 4 * train["c"] > 8 * train["r"]
    assert val["r"] / val.total() == pytest.approx(337 / 1203, abs=0.08)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "plain"])
def test_variant_changes_pixels_but_neither_masks_nor_size(variant: str) -> None:
    options = ShapesOptions(variant=variant, scene_size=96)
    plain, changed = scene(ShapesOptions(scene_size=96), "train", 3), scene(options, "train", 3)
    assert (plain.owner == changed.owner).all()
    assert changed.image.shape == plain.image.shape
    assert changed.image.dtype == np.uint8
    assert np.abs(plain.image.astype(int) - changed.image).mean() > 2
    shown = classification_classes(options)[0]
    pair = [classification_image(o, "val", shown, 0) for o in (options, ShapesOptions())]
    assert (pair[0] != pair[1]).any()


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(self: Image.Image, *arguments: Any, **keywords: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        build_shapes(tmp_path / "set", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_single_shapes_carry_their_class(tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    from pomp_det.data.records import load_image_labels
    from pomp_engine.data.derived_files import Outcome
    from pomp_lab.shapes.labels import prepare_image_labels

    options = ShapesOptions(
        classes=12, classification_classes=12, scenes=3, val_scenes=2, scene_size=96, val_images_per_class=2
    )
    build_shapes(tmp_path / "shapes", options)
    path, outcome = prepare_image_labels(tmp_path / "shapes")
    assert outcome == Outcome.WRITTEN
    assert prepare_image_labels(tmp_path / "shapes")[1] == Outcome.UP_TO_DATE
    records, vocabulary, problems = load_image_labels(path, tmp_path / "shapes/classification/val")
    assert len(records) == 24
    assert not problems.counts
    for record in records:
        (label,) = record["pos_category_ids"]
        assert Path(record["file_name"]).parent.name == vocabulary.names[label].replace(" ", "_")
    assert set(vocabulary.frequency or ()) >= {"r"}
    (tmp_path / "shapes/shapes.json").unlink()
    with pytest.raises(UserError, match=r"make_shapes\.py"):
        prepare_image_labels(tmp_path / "shapes")


@given(classes=hostile.json_files({"classes": [ROW, ROW]}), manifest=hostile.json_files({"options": {"classes": 3}}))
@settings(max_examples=60, deadline=None)
def test_facts_of_a_folder_are_read_or_refused(
    classes: bytes, manifest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "classes.json").write_bytes(classes)
    (folder / "shapes.json").write_bytes(manifest)
    for row in hostile.success_or_one_line(lambda: class_rows(folder)) or []:
        assert row["split"] in ("base", "novel")
    options = hostile.success_or_one_line(lambda: shape_options(folder))
    assert options is None or options["classes"] >= 1


def test_facts_are_those_that_were_written(made: Path) -> None:
    assert len(class_rows(made)) == shape_options(made)["classes"] == SMALL.classes
