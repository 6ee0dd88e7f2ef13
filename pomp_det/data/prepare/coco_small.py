"""A few hundred COCO photos as one training and one validation set, for runs on a laptop.

The photos come in three folders: ``coco128`` and ``coco128_val`` (boxes of all photos, masks of most of them in a file
of their own) and ``coco_more`` (boxes and masks of all).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import read_annotation_file
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs

Document = dict[str, Any]
RECIPE = "coco_small 1"


def prepare_coco_small(root: Path, overwrite: bool = False) -> dict[Path, Outcome]:
    """Write ``coco_small/instances_{train,val,val_masks}.json``; ``val_masks`` has only photos with masks.

    Raises:
        UserError: when a file of the three folders is absent or damaged.
    """
    made = {}
    for split, folder in (("train", "coco128"), ("val", "coco128_val")):
        photos = f"{split}2017"
        boxes, masks, more = (
            root / folder / "annotations" / f"instances_{photos}_boxes.json",
            root / folder / "annotations" / f"instances_{photos}_masks.json",
            root / "coco_more" / "annotations" / f"instances_{photos}.json",
        )
        inputs = file_inputs(root, boxes, masks, more)

        outputs = {f"instances_{split}.json": False} | ({"instances_val_masks.json": True} if split == "val" else {})
        for name, masks_only in outputs.items():
            output = root / "coco_small" / name
            build = partial(_joined, folder, photos, (boxes, masks, more), masks_only)
            made[output] = derive_json(output, inputs, RECIPE, build, overwrite)
    return made


def _joined(folder: str, photos: str, files: tuple[Path, Path, Path], masks_only: bool) -> Document:
    boxes, masks, more = (read_annotation_file(file) for file in files)
    of_folder = masks if masks_only else with_masks(boxes, masks)
    return join({f"{folder}/{photos}": of_folder, f"coco_more/{photos}": more})


def with_masks(boxes: Document, masks: Document) -> Document:
    """``boxes``, with the annotations of ``masks`` for the images that it has."""
    better = {image["id"] for image in masks["images"]}
    kept = [each for each in boxes["annotations"] if each["image_id"] not in better]
    return {**boxes, "annotations": kept + masks["annotations"]}


def join(documents: dict[str, Document]) -> Document:
    """Several files as one, whose photos lie in the folders that are the keys; annotations are numbered anew."""
    images = [
        {**image, "file_name": f"{folder}/{image['file_name']}"}
        for folder, document in documents.items()
        for image in document["images"]
    ]
    annotations = [each for document in documents.values() for each in document["annotations"]]
    numbered = [{**each, "id": number} for number, each in enumerate(annotations, start=1)]
    first = next(iter(documents.values()))
    return {"images": images, "annotations": numbered, "categories": first["categories"]}
