"""Generated scenes for segmentation: the list of classes, and training labels without the novel ones."""

from __future__ import annotations

from pathlib import Path

from pomp_engine.data.derived_files import derive_json, file_inputs
from pomp_seg.data.label_sets import LabelSet, read_label_set
from pomp_seg.data.prepare.coco_stuff import Made
from pomp_seg.data.prepare.label_folders import convert_labels, count_labels, lookup
from pomp_seg.data.records import files_by_key
from prompt_core.errors import UserError
from prompt_core.files import read_json


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
    rows = read_json(truth)["classes"]
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
    sources = {key: Path(path) for key, path in sorted(files_by_key(shapes / "semantic/train", (".png",)).items())}
    made: Made = {output: convert_labels(output, sources, recipe, convert, len(base), base.ignore_label, overwrite)}
    counts = output.with_name("train_base_label_count.json")
    made[counts] = count_labels(output, counts, base.ignore_label, overwrite)
    return made
