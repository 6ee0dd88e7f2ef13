"""One folder of photos and class labels out of three: COCO's panoptic labels, COCO's masks, Pascal VOC's labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pomp_seg.data.label_maps import read_label_map
from prompt_core.errors import UserError
from prompt_core.files import make_output_folder

IGNORE = 255
# COCO's 133 panoptic names as one says them.
PLAIN = {
    "door-stuff": "door",
    "floor-wood": "wooden floor",
    "mirror-stuff": "mirror",
    "playingfield": "playing field",
    "wall-brick": "brick wall",
    "wall-stone": "stone wall",
    "wall-tile": "tile wall",
    "wall-wood": "wooden wall",
    "water-other": "water",
    "window-blind": "window blind",
    "window-other": "window",
    "sky-other-merged": "sky",
    "table-merged": "side table",
    "floor-other-merged": "floor",
    "food-other-merged": "food",
    "building-other-merged": "building",
    "wall-other-merged": "wall",
}
# Names that Pascal VOC has for COCO's: classes of their own, so that both are learned.
VOC_SPELLINGS = ("aeroplane", "diningtable", "motorbike", "pottedplant", "sofa", "tvmonitor")


@dataclass(frozen=True)
class Labelled:
    """A photo and its class indices (H, W) uint8."""

    photo: Path
    labels: np.ndarray


def plain_names(names: list[str]) -> list[str]:
    """COCO's panoptic names without their marks."""
    return [PLAIN.get(name, name.removesuffix("-merged")) for name in names]


def from_panoptic(root: Path, part: str) -> Iterator[Labelled]:
    """The labels of ``prepare.py coco_small_seg``, whose photos are those of coco128 or coco128_val."""
    folder = "coco128_val/val2017" if part == "val" else "coco128/train2017"
    for file in sorted((root / "coco_small_seg" / part).glob("*.png")):
        yield Labelled(root / folder / f"{file.stem}.jpg", read_label_map(file).astype(np.uint8))


def from_masks(root: Path, document: Path, photos: str) -> Iterator[Labelled]:
    """Polygons of COCO's things, small ones over large ones; everything else is not known."""
    content = json.loads(document.read_text(encoding="utf-8"))
    ids = [category["id"] for category in sorted(content["categories"], key=lambda category: category["id"])]
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    for image in content["images"]:
        labels = Image.new("L", (image["width"], image["height"]), IGNORE)
        drawing = ImageDraw.Draw(labels)
        for annotation in sorted(by_image.get(image["id"], []), key=lambda annotation: -annotation["area"]):
            if isinstance(annotation["segmentation"], list):
                for polygon in annotation["segmentation"]:
                    drawing.polygon(polygon, fill=ids.index(annotation["category_id"]))
        yield Labelled(root / photos / image["file_name"], np.asarray(labels))


def from_voc(labels: Path, photos: Path, listed: Path, numbers: list[int]) -> Iterator[Labelled]:
    """VOC's labels, where 0 is everything else and 255 a border.

    Args:
        numbers: what VOC's class 1, 2, … becomes.
    """
    table = np.full(256, IGNORE, np.uint8)
    table[1 : len(numbers) + 1] = numbers
    for name in listed.read_text(encoding="utf-8").split():
        yield Labelled(photos / f"{name}.jpg", table[read_label_map(labels / f"{name}.png")])


def write(examples: Iterator[Labelled], output: Path, prefix: str) -> int:
    """Copy photos to ``output/photos`` and write labels to ``output/labels``; how many.

    Raises:
        UserError: a photo that is absent.
    """
    photos, labels = make_output_folder(output / "photos"), make_output_folder(output / "labels")
    count = 0
    for example in examples:
        if not example.photo.is_file():
            raise UserError(f"{example.photo} does not exist")
        name = f"{prefix}_{example.photo.stem}"
        shutil.copyfile(example.photo, photos / f"{name}.jpg")
        Image.fromarray(example.labels).save(labels / f"{name}.png")
        count += 1
    return count
