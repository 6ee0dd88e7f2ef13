"""Files derived from COCO: the 48/17 zero-shot splits of OVR-CNN, class counts, caption tags; a small set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import read_annotation_file
from pomp_det.data.class_splits import COCO_SEEN, COCO_UNSEEN
from pomp_det.data.prepare.lvis import category_info
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.errors import UserError
from prompt_core.files import read_json


def keep_classes(document: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """COCO with the annotations of some classes and the images that have one; all 80 categories stay.

    Keeping the categories keeps every class index, which is what the suffix ``_oriorder`` of the published files means.

    Raises:
        UserError: when a class is not among the categories.
    """
    of_name = {category["name"]: category["id"] for category in document["categories"]}
    missing = [name for name in names if name not in of_name]
    if missing:
        raise UserError(f"the annotations have no category {missing[0]!r}; COCO's instances_*2017.json is expected")
    category_ids = {of_name[name] for name in names}
    annotations = [annotation for annotation in document["annotations"] if annotation["category_id"] in category_ids]
    present = {annotation["image_id"] for annotation in annotations}
    images = [image for image in document["images"] if image["id"] in present]
    return {**document, "images": images, "annotations": annotations}


def caption_tags(captions: Mapping[str, Any], categories: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Photos with their captions and the classes that the captions name.

    A class is named when its words stand in a caption, as they are or with a plural ending. Photos whose captions
    name no class are kept with an empty list: a caption says more than classes.

    Args:
        captions: COCO's captions file.
        categories: COCO's categories.
    """
    patterns = {
        category["id"]: re.compile(rf"\b{re.escape(category['name'])}(?:s|es)?\b", re.IGNORECASE)
        for category in categories
    }
    texts: dict[Any, list[str]] = {}
    for annotation in captions["annotations"]:
        texts.setdefault(annotation["image_id"], []).append(" ".join(annotation["caption"].split()))
    images = []
    for image in captions["images"]:
        descriptions = texts.get(image["id"], [])
        named = [category for category, pattern in patterns.items() if any(map(pattern.search, descriptions))]
        images.append({**image, "captions": descriptions, "pos_category_ids": named})
    return {
        "info": captions.get("info", {}),
        "licenses": captions.get("licenses", []),
        "images": images,
        "annotations": [],
        "categories": list(categories),
    }


def prepare_coco(root: Path, overwrite: bool = False) -> dict[Path, Outcome]:
    """Make every derived file whose source exists.

    Raises:
        UserError: when no source exists.
    """
    annotations, zero_shot = root / "coco/annotations", root / "coco/zero-shot"
    train, val = annotations / "instances_train2017.json", annotations / "instances_val2017.json"
    captions = annotations / "captions_train2017.json"
    if not train.is_file() and not val.is_file():
        raise UserError(f"neither {train} nor {val} exists; python datasets/check.py coco says how to get them")
    made: dict[Path, Outcome] = {}

    def derive(output: Path, recipe: str, sources: Sequence[Path], build: Callable[[], Any]) -> None:
        made[output] = derive_json(output, file_inputs(root, *sources), recipe, build, overwrite)

    if train.is_file():
        seen = zero_shot / "instances_train2017_seen_2_oriorder.json"
        derive(seen, "coco 48 seen classes, 1", [train], lambda: keep_classes(read_annotation_file(train), COCO_SEEN))
        counts = seen.with_name(seen.stem + "_cat_info.json")
        derive(counts, "category counts, 1", [seen], lambda: category_info(read_annotation_file(seen)))
    if val.is_file():
        names = (*COCO_SEEN, *COCO_UNSEEN)
        both = zero_shot / "instances_val2017_all_2_oriorder.json"
        derive(both, "coco 48 + 17 classes, 1", [val], lambda: keep_classes(read_annotation_file(val), names))
    if train.is_file() and captions.is_file():
        derive(
            annotations / "captions_train2017_tags_allcaps.json",
            "caption tags, 1",
            [captions, train],
            lambda: caption_tags(_read_captions(captions), read_annotation_file(train)["categories"]),
        )
    return made


def _read_captions(path: Path) -> dict[str, Any]:
    document = read_json(path)
    needed = {"annotations": ("caption", "image_id"), "images": ("id",)}
    if not isinstance(document, dict) or not all(isinstance(document.get(part), list) for part in needed):
        raise UserError(f"{path}: COCO's captions file is expected, with 'images' and 'annotations'")
    for part, keys in needed.items():
        for key in keys:
            if any(key not in item for item in document[part]):
                raise UserError(f"{path}: an entry has no {key!r}; COCO's captions file is expected")
    return document


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
