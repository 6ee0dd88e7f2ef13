"""Labels derived from generated shapes: image labels for detectors, and semantic labels of the base classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pomp_det.data.prepare.photo_folders import photo_folder_labels
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from pomp_lab.shapes.facts import class_rows
from pomp_seg.data.label_sets import LabelSet, read_label_set
from pomp_seg.data.prepare.label_folders import Made, convert_labels, count_labels, lookup
from pomp_seg.data.prepare.remapped import png_files
from prompt_core.errors import UserError
from prompt_core.files import read_json


def prepare_image_labels(shapes: Path) -> tuple[Path, Outcome]:
    """Write ``annotations/image_labels.json``: pictures of single objects with their classes and without boxes.

    The validation pictures of ``classification`` are used. The training pictures show only base classes; those of
    validation show every class, as ImageNet's photos do for LVIS, and none of them is a scene.

    Args:
        shapes: a folder written by ``datasets/make_shapes.py``, with both parts.

    Raises:
        UserError: when a part is missing.
    """
    output = shapes / "annotations/image_labels.json"
    truth, options, pictures = (
        shapes / name for name in ("annotations/lvis_train.json", "shapes.json", "classification/val")
    )
    for path in (truth, options, pictures):
        if not path.exists():
            raise UserError(f"{path} does not exist; run python datasets/make_shapes.py --output {shapes}")
    inputs = file_inputs(shapes, options, truth)

    def build() -> dict[str, Any]:
        return photo_folder_labels(pictures, read_json(truth)["categories"])[0]

    return output, derive_json(output, inputs, "shapes image labels 1", build)


def prepare_shapes_seg(root: Path, overwrite: bool = False) -> Made:
    """Make ``shapes/semantic_classes.json``, ``shapes/semantic/train_base`` and label counts.

    Source: a folder that ``datasets/make_shapes.py`` wrote. Its rare classes are the unseen ones.

    Raises:
        UserError: when it is absent.
    """
    shapes = root / "shapes"
    listed, truth = shapes / "semantic_classes.json", shapes / "classes.json"
    if not truth.is_file() or not (shapes / "semantic/train").is_dir():
        raise UserError(f"{shapes} holds no scenes; run python datasets/make_shapes.py --output {shapes}")
    rows = class_rows(shapes)
    document = {
        "source": "generated shapes",
        "names": [row["name"] for row in rows],
        "ids": [row["id"] for row in rows],
        "unseen": [row["name"] for row in rows if row["split"] == "novel"],
    }
    inputs = file_inputs(root, truth)
    made: Made = {listed: derive_json(listed, inputs, "shapes classes, 1", lambda: document, overwrite)}
    classes = read_label_set(listed)
    made |= _base_labels(shapes, classes, overwrite)
    counts = shapes / "semantic/val_label_count.json"
    inputs = file_inputs(root, shapes / "shapes.json")
    made[counts] = count_labels(shapes / "semantic/val", counts, classes.ignore_label, overwrite, inputs)
    return made


def _base_labels(shapes: Path, classes: LabelSet, overwrite: bool) -> Made:
    assert classes.seen is not None
    base, output = classes.base(), shapes / "semantic/train_base"
    recipe = f"shapes, {len(base)} base classes {base.vocabulary.sha256[:12]}, 1"
    values = {index: number for number, index in enumerate(classes.seen)}
    convert = lookup(values, base.ignore_label, (*classes.unseen, classes.ignore_label))
    files = png_files(shapes / "semantic/train")
    made: Made = {output: convert_labels(output, files, recipe, convert, len(base), base.ignore_label, overwrite)}
    counts = output.with_name("train_base_label_count.json")
    made[counts] = count_labels(output, counts, base.ignore_label, overwrite)
    return made
