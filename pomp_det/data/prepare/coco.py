"""Files derived from COCO 2017: the 48/17 zero-shot splits of OVR-CNN, class counts and caption tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import read_annotation_file
from pomp_det.data.prepare.lvis import category_info
from pomp_det.data.splits import COCO_SEEN, COCO_UNSEEN
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.errors import UserError
from prompt_core.files import read_json


def keep_classes(document: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """COCO with the annotations of some classes and the images that have one; all 80 categories stay.

    Keeping the categories keeps every class index where it was, which the ending ``_oriorder`` of the published files
    means.

    Raises:
        UserError: when a class is not among the categories.
    """
    of_name = {category["name"]: category["id"] for category in document["categories"]}
    missing = [name for name in names if name not in of_name]
    if missing:
        raise UserError(f"the annotations have no category {missing[0]!r}; COCO's instances_*2017.json is expected")
    kept = {of_name[name] for name in names}
    annotations = [annotation for annotation in document["annotations"] if annotation["category_id"] in kept]
    present = {annotation["image_id"] for annotation in annotations}
    images = [image for image in document["images"] if image["id"] in present]
    return {**document, "images": images, "annotations": annotations}


def caption_tags(
    captions: Mapping[str, Any], categories: Sequence[Mapping[str, Any]], names: Iterable[str] | None = None
) -> dict[str, Any]:
    """Photos with their captions and the classes that the captions name.

    A class is named when its words stand in a caption, as they are or with a plural ending. Photos whose captions
    name no class are kept with an empty list: a caption says more than classes.

    Args:
        captions: COCO's captions file.
        categories: COCO's categories.
        names: classes to look for; None for all of them.
    """
    wanted = set(names) if names is not None else {category["name"] for category in categories}
    patterns = {
        category["id"]: re.compile(rf"\b{re.escape(category['name'])}(?:s|es)?\b", re.IGNORECASE)
        for category in categories
        if category["name"] in wanted
    }
    texts: dict[Any, list[str]] = {}
    for annotation in captions["annotations"]:
        texts.setdefault(annotation["image_id"], []).append(" ".join(annotation["caption"].split()))
    images = [
        {
            **image,
            "captions": texts.get(image["id"], []),
            "pos_category_ids": [
                category
                for category, pattern in patterns.items()
                if any(pattern.search(text) for text in texts.get(image["id"], []))
            ],
        }
        for image in captions["images"]
    ]
    return {
        "info": captions.get("info", {}),
        "licenses": captions.get("licenses", []),
        "images": images,
        "annotations": [],
        "categories": list(categories),
    }


def prepare_coco(root: Path, overwrite: bool = False) -> dict[Path, Outcome]:
    """Make every derived file whose source is there.

    Raises:
        UserError: when no source is there.
    """
    coco = root / "coco"
    train, val = coco / "annotations/instances_train2017.json", coco / "annotations/instances_val2017.json"
    captions = coco / "annotations/captions_train2017.json"
    seen = coco / "zero-shot/instances_train2017_seen_2_oriorder.json"
    if not train.is_file() and not val.is_file():
        raise UserError(f"neither {train} nor {val} exists; python datasets/check.py coco says how to get them")
    made: dict[Path, Outcome] = {}

    def derive(output: Path, recipe: str, sources: Sequence[Path], build: Any) -> None:
        made[output] = derive_json(output, file_inputs(root, *sources), recipe, build, overwrite)

    if train.is_file():
        derive(seen, "coco 48 seen classes, 1", [train], lambda: keep_classes(read_annotation_file(train), COCO_SEEN))
        counts = seen.with_name(seen.stem + "_cat_info.json")
        derive(counts, "category counts, 1", [seen], lambda: category_info(read_annotation_file(seen)))
    if val.is_file():
        every = (*COCO_SEEN, *COCO_UNSEEN)
        both = coco / "zero-shot/instances_val2017_all_2_oriorder.json"
        derive(both, "coco 48 + 17 classes, 1", [val], lambda: keep_classes(read_annotation_file(val), every))
    if train.is_file() and captions.is_file():
        tags = coco / "annotations/captions_train2017_tags_allcaps.json"
        derive(
            tags,
            "caption tags, 1",
            [captions, train],
            lambda: caption_tags(_read_captions(captions), read_annotation_file(train)["categories"]),
        )
    return made


def _read_captions(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in ("images", "annotations")
    ):
        raise UserError(f"{path}: COCO's captions file is expected, with 'images' and 'annotations'")
    for key, items in (
        ("caption", document["annotations"]),
        ("image_id", document["annotations"]),
        ("id", document["images"]),
    ):
        if any(key not in item for item in items):
            raise UserError(f"{path}: an entry has no {key!r}; COCO's captions file is expected")
    return document
