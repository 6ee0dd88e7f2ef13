"""Detectors on boxes of which some are labelled "circle" and some "red circle": what a hierarchy of classes is worth.

So are Open Images' boxes labelled: with the most exact class that was verified in the photo. Here the generated scenes
have 252 classes, those of colour, pattern and shape and the shapes alone, and every other training box only says its
shape. Of the test scenes both are scored by Open Images' protocol, as two data sets on the same photos.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.comparisons.comparison import Comparison
from pomp_lab.comparisons.detectors import HAND
from pomp_lab.runs import RunStore
from pomp_lab.shapes.facts import class_rows, shape_options
from prompt_core.files import read_json, sha256_of_json, write_json
from prompt_core.vocabulary import plain_name

EXACT, GENERAL, MIXED = "exact", "general", "mixed"
_CONFIG = "mini/scenes_boxes.yaml"
_CLASSES = "classes.json"  # the hierarchy with its categories, as the loss reads it
_SHARE, _LABEL_SEED = 0.5, 0  # of the training boxes that only say their shape, the same for all runs


@dataclass(frozen=True)
class LabelRow:
    """One detector of the table.

    Attributes:
        labels: of the training boxes, :data:`EXACT` or :data:`MIXED`.
        overrides: further settings.
    """

    labels: str
    overrides: tuple[tuple[str, Any], ...] = ()
    hand = True
    evaluated = False


_IGNORE = (("MODEL.ROI_BOX_HEAD.HIERARCHY_IGNORE", True),)
_POSITIVE = (*_IGNORE, ("MODEL.ROI_BOX_HEAD.HIERARCHY_POS_PARENTS", True))
ROWS = {
    "exact labels": LabelRow(EXACT),
    "labels of two levels": LabelRow(MIXED),
    "labels of two levels, HIERARCHY_IGNORE": LabelRow(MIXED, _IGNORE),
    "labels of two levels, HIERARCHY_IGNORE and HIERARCHY_POS_PARENTS": LabelRow(MIXED, _POSITIVE),
}


class GeneralLabels(Comparison):
    """The table of detectors that learn from labels of two levels.

    Args:
        shapes: generated shapes with both parts.
    """

    title = "AP50 by Open Images' protocol on generated scenes, boxes labelled on two levels; mean ± half the range"
    heading = "training labels"
    rows = ROWS
    columns = (f"{EXACT} AP50", f"{GENERAL} AP50", f"{GENERAL} AP50-expanded")

    def __init__(self, shapes: Path, configs: Path, store: RunStore, overrides: Sequence[Any] = ()) -> None:
        super().__init__(configs, store, overrides)
        self.shapes = shapes
        self.facts = {**shape_options(shapes), "general labels": [_SHARE, _LABEL_SEED]}

    @property
    def datasets(self) -> Sequence[str]:
        return [f"shapes_{level}_val" for level in (EXACT, GENERAL)]

    def metric_key(self, column: str) -> str:
        level, metric = column.split(" ")
        return f"shapes_{level}_val/box_{metric}"

    def config_file(self, row: str) -> str:
        return _CONFIG

    def config_hash(self, row: str) -> str:
        return sha256_of_json([self.read(_CONFIG) + self.read("mini/base.yaml")])

    def settings(self, row: str, seed: int) -> dict[str, Any]:
        folder = self._annotations()
        scenes = str(self.shapes / "scenes")
        labels = ROWS[row].labels
        files = {f"shapes_{labels}_train": f"{labels}_train.json"}
        files |= {f"shapes_{level}_val": f"{level}_val.json" for level in (EXACT, GENERAL)}
        return {
            "MODEL.MASK_ON": False,
            "MODEL.ROI_HEADS.NUM_CLASSES": len(read_json(folder / _CLASSES)["categories"]),
            "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(folder / f"{labels}_counts.json"),
            "MODEL.ROI_BOX_HEAD.HELD_OUT_FREQUENCIES": "",
            "MODEL.ROI_BOX_HEAD.HIERARCHY_PATH": str(folder / _CLASSES),
            "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(self._classifier(folder)),
            "DATASETS.FILES": [[name, str(folder / file), scenes, "openimages"] for name, file in files.items()],
            "DATASETS.TRAIN": (f"shapes_{labels}_train",),
            "DATASETS.TEST": tuple(self.datasets),
        }

    def _annotations(self) -> Path:
        """A folder of annotations of both levels, counts and the hierarchy of the classes."""
        folder = self.store.folder / f"two_levels_{sha256_of_json(self.facts)[:8]}"
        return self.store.once(folder / _CLASSES, lambda: self._write_annotations(folder)).parent

    def _write_annotations(self, folder: Path) -> None:
        from pomp_det.data.openimages_classes import HIERARCHY
        from pomp_det.data.prepare.lvis import category_info

        scenes = {split: read_json(self.shapes / "annotations" / f"lvis_{split}.json") for split in ("train", "val")}
        categories, general_of = two_levels(class_rows(self.shapes), scenes["val"]["categories"])
        for split in scenes:
            for level in (EXACT, MIXED) if split == "train" else (EXACT, GENERAL):
                document = relabelled(scenes[split], categories, general_of, level)
                write_json(folder / f"{level}_{split}.json", document)
                if split == "train":
                    write_json(folder / f"{level}_counts.json", category_info(document))
        tree = hierarchy(categories, general_of)
        write_json(folder / HIERARCHY, tree)
        write_json(folder / _CLASSES, {"hierarchy": tree, "categories": categories})

    def _classifier(self, folder: Path) -> Path:
        from prompt_core.classifier import TextClassifier
        from prompt_core.clip import load_clip
        from prompt_core.vocabulary import Vocabulary

        path = folder / "classifier.safetensors"

        def make() -> None:
            vocabulary = Vocabulary.load(folder / f"{EXACT}_val.json")
            TextClassifier.build(load_clip("mini"), vocabulary, HAND).save(path)

        return self.store.once(path, make)


def two_levels(
    rows: Iterable[Mapping[str, Any]], categories: Iterable[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Categories of the classes and, behind them, of their shapes; and the shape's id of each class's.

    Args:
        rows: of :func:`pomp_lab.shapes.facts.class_rows`.
        categories: of the scenes' annotations, which count the classes.
    """
    row_of = {plain_name(row["name"]): row for row in rows}
    classes = {category["id"]: row_of[plain_name(category["name"])] for category in categories}
    shapes = sorted({row["shape"] for row in classes.values()})
    id_of = {shape: number for number, shape in enumerate(shapes, start=1 + max(classes))}
    listed = [(number, classes[number]["name"]) for number in sorted(classes)]
    listed += [(number, shape) for shape, number in id_of.items()]
    levels = [{"id": number, "name": name, "freebase_id": f"/shapes/{number}"} for number, name in listed]
    return levels, {number: id_of[row["shape"]] for number, row in classes.items()}


def hierarchy(categories: Iterable[Mapping[str, Any]], general_of: Mapping[int, int]) -> dict[str, Any]:
    """The shapes with the classes below them, in the format of Open Images."""
    below: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for own, general in general_of.items():
        below[general].append({"LabelName": f"/shapes/{own}"})
    shapes = [category for category in categories if category["id"] not in general_of]
    tree = [{"LabelName": shape["freebase_id"], "Subcategory": below[shape["id"]]} for shape in shapes]
    return {"LabelName": "/shapes/any", "Subcategory": tree}


def relabelled(
    scenes: Mapping[str, Any], categories: Sequence[Mapping[str, Any]], general_of: Mapping[int, int], level: str
) -> dict[str, Any]:
    """The scenes with labels of one level, or of both; that level's classes are all looked for in every scene."""
    chance = random.Random(_LABEL_SEED)
    share = {EXACT: 0.0, MIXED: _SHARE, GENERAL: 1.0}[level]
    classes = set(general_of.values() if level == GENERAL else general_of)
    if level == MIXED:
        classes |= set(general_of.values())
    annotations, present = [], defaultdict(set)
    for annotation in scenes["annotations"]:
        own = annotation["category_id"]
        label = general_of[own] if chance.random() < share else own
        present[annotation["image_id"]].add(label)
        box = {key: annotation[key] for key in ("id", "image_id", "bbox", "area")}
        annotations.append({**box, "category_id": label, "iscrowd": 0})
    images = []
    for image in scenes["images"]:
        seen = present[image["id"]]
        kept = {key: image[key] for key in ("id", "width", "height")}
        kept["file_name"] = "/".join(Path(image["coco_url"]).parts[-2:])  # LVIS finds photos by these
        images.append({**kept, "pos_category_ids": sorted(seen), "neg_category_ids": sorted(classes - seen)})
    return {"images": images, "annotations": annotations, "categories": list(categories)}
