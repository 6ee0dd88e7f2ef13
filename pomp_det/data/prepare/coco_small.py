"""A small set of COCO photos for runs on a laptop: joined from three packs of photos, or taken out of COCO 2017."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import read_annotation_file
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs


def prepare_coco_small(root: Path, overwrite: bool = False) -> dict[Path, Outcome]:
    """Write ``coco_small/instances_{train,val,val_masks}.json``, a few hundred photos for runs on a laptop.

    The photos lie in ``coco128`` and ``coco128_val`` (boxes of all, masks of most in a file of their own) and in
    ``coco_more`` (boxes and masks of all); ``val_masks`` has only photos with masks.

    Raises:
        UserError: when a file of the three folders is absent or damaged.
    """
    made = {}
    for split, folder in (("train", "coco128"), ("val", "coco128_val")):
        photos = f"{split}2017"
        files = (
            root / folder / "annotations" / f"instances_{photos}_boxes.json",
            root / folder / "annotations" / f"instances_{photos}_masks.json",
            root / "coco_more" / "annotations" / f"instances_{photos}.json",
        )
        inputs = file_inputs(root, *files)
        for masks_only in (False, True) if split == "val" else (False,):
            output = root / "coco_small" / f"instances_{split}{'_masks' if masks_only else ''}.json"
            build = partial(_join_packs, folder, photos, files, masks_only)
            made[output] = derive_json(output, inputs, "coco_small 1", build, overwrite)
    return made


def _join_packs(folder: str, photos: str, files: Sequence[Path], masks_only: bool) -> dict[str, Any]:
    boxes, masks, more = map(read_annotation_file, files)
    of_folder = masks if masks_only else with_masks(boxes, masks)
    return join({f"{folder}/{photos}": of_folder, f"coco_more/{photos}": more})


def with_masks(boxes: Mapping[str, Any], masks: Mapping[str, Any]) -> dict[str, Any]:
    """``boxes``, with the annotations of ``masks`` for the images in ``masks``."""
    masked = {image["id"] for image in masks["images"]}
    unmasked = [annotation for annotation in boxes["annotations"] if annotation["image_id"] not in masked]
    return {**boxes, "annotations": unmasked + masks["annotations"]}


def join(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Several files merged; the keys are the folders of their photos, and annotations are renumbered."""
    images = [
        {**image, "file_name": f"{folder}/{image['file_name']}"}
        for folder, document in documents.items()
        for image in document["images"]
    ]
    annotations = [annotation for document in documents.values() for annotation in document["annotations"]]
    numbered = [{**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)]
    first = next(iter(documents.values()))
    return {"images": images, "annotations": numbered, "categories": first["categories"]}
