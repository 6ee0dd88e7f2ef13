"""PASCAL-Context with its 59 most frequent classes, from ``trainval_merged.json`` of PASCAL in Detail.

The file holds a run-length mask for each of 459 categories of each photo; categories other than the 59 are background
and ignored. The masks are decoded by pycocotools, so that the ``detail`` package is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pomp_engine.data.annotation_masks import RunLengths, mask_fault
from pomp_seg.data.label_sets import IGNORE_LABEL, label_set
from pomp_seg.data.prepare.label_folders import Made, convert_labels
from prompt_core.documents.schema import check
from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_json

FILE = "trainval_merged.json"
_PLACES = ("VOC2010", "VOCdevkit/VOC2010", "pcontext", ".")


def prepare_pcontext(root: Path, overwrite: bool = False) -> Made:
    """Make ``pcontext/{train,val}/label``; photos are read where VOC 2010 has them.

    Raises:
        UserError: when the file is absent, or not of this format.
    """
    path = next((root / place / FILE for place in _PLACES if (root / place / FILE).is_file()), None)
    if path is None:
        raise UserError(
            f"{root / _PLACES[0] / FILE} does not exist; python datasets/check.py pcontext says how to get it"
        )
    splits = read_photos(path)
    vocabulary = label_set("pascal_context").vocabulary
    assert vocabulary.ids is not None
    index_of = {int(category): index for index, category in enumerate(vocabulary.ids)}
    made: Made = {}
    for split, photos in splits.items():
        output = root / "pcontext" / split / "label"
        made[output] = convert_labels(
            output,
            photos,
            "PASCAL-Context, 59 classes, 1",
            lambda photo: paint(photo, index_of),
            len(vocabulary),
            IGNORE_LABEL,
            overwrite,
            digest=sha256_of_json,
        )
    return made


def read_photos(path: Path) -> dict[str, dict[str, Any]]:
    """``{split: {name: {"height", "width", "masks": [[category, run lengths]]}}}``, with the splits train and val.

    Raises:
        UserError: when the file is not as expected.
    """
    document = read_json(path)
    try:
        photos = {image["image_id"]: image for image in document["images"]}
        masks: dict[Any, list[Any]] = {}
        for mask in document["annos_segmentation"]:
            masks.setdefault(mask["image_id"], []).append([int(mask["category_id"]), mask["segmentation"]])
        splits: dict[str, dict[str, Any]] = {"train": {}, "val": {}}
        for number, image in photos.items():
            if image["phase"] in splits:
                size = {"height": int(image["height"]), "width": int(image["width"])}
                splits[image["phase"]][Path(image["file_name"]).stem] = {**size, "masks": masks.get(number, [])}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: {FILE} of PASCAL in Detail is expected, with 'images' and 'annos_segmentation' (missing: {error})"
        ) from error
    if not splits["train"] or not splits["val"]:
        raise UserError(f"{path} has photos of phase {'train' if splits['train'] else 'val'} only; expected both")
    return {split: dict(sorted(photos.items())) for split, photos in splits.items()}


def paint(photo: Mapping[str, Any], index_of: Mapping[int, int]) -> np.ndarray:
    """The label map of a photo, (H, W) int32; a later mask covers an earlier one.

    Raises:
        UserError: when a mask has another size than the photo.
    """
    import pycocotools.mask as mask_utils

    size = (photo["height"], photo["width"])
    labels = np.full(size, IGNORE_LABEL, dtype=np.int32)
    for category, run_lengths in photo["masks"]:
        # pycocotools writes as many pixels as the run lengths say, wherever that is.
        check(run_lengths, RunLengths, FILE, "a mask in 'annos_segmentation'")
        fault = mask_fault(run_lengths, size[1], size[0])
        if fault is not None:
            raise UserError(f"a mask of category {category} in a photo of size {size}: {fault}; download {FILE} again")
        mask = mask_utils.decode(run_lengths).astype(bool)
        labels[mask] = index_of.get(category, IGNORE_LABEL)
    return labels
