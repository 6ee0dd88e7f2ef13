"""Files derived from LVIS v1: the open-vocabulary training set, class counts and the mini validation set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import read_annotation_file
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.errors import UserError


def without_rare(document: Mapping[str, Any]) -> dict[str, Any]:
    """LVIS without annotations of rare classes (``frequency`` r); images and categories stay (ViLD's protocol)."""
    rare = {category["id"] for category in document["categories"] if category["frequency"] == "r"}
    annotations = [annotation for annotation in document["annotations"] if annotation["category_id"] not in rare]
    return {**document, "annotations": annotations}


def category_info(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The categories in the order of their ids, with ``image_count`` and ``instance_count`` of these annotations."""
    images: dict[Any, set[Any]] = {category["id"]: set() for category in document["categories"]}
    instances = dict.fromkeys(images, 0)
    for annotation in document["annotations"]:
        images[annotation["category_id"]].add(annotation["image_id"])
        instances[annotation["category_id"]] += 1
    return [
        {**category, "image_count": len(images[category["id"]]), "instance_count": instances[category["id"]]}
        for category in sorted(document["categories"], key=lambda category: category["id"])
    ]


def minival(document: Mapping[str, Any]) -> dict[str, Any]:
    """The photos of LVIS's validation set that come from COCO's val2017, with their annotations.

    The mini validation set of MDETR (Kamath et al. 2021) and of the grounding detectors after it; the other validation
    photos come from COCO's train2017, on which these detectors may have trained.

    Raises:
        UserError: when no image names the COCO split that it comes from.
    """
    images = [image for image in document["images"] if "/val2017/" in str(image.get("coco_url", ""))]
    if not images:
        raise UserError("no image has a 'coco_url' with /val2017/; the validation file of LVIS v1 is expected")
    image_ids = {image["id"] for image in images}
    annotations = [annotation for annotation in document["annotations"] if annotation["image_id"] in image_ids]
    return {**document, "images": images, "annotations": annotations}


def prepare_lvis(root: Path, overwrite: bool = False) -> dict[Path, Outcome]:
    """Make every derived file whose source exists.

    Raises:
        UserError: when neither the training nor the validation annotations exist.
    """
    train, val = root / "lvis/lvis_v1_train.json", root / "lvis/lvis_v1_val.json"
    if not train.is_file() and not val.is_file():
        raise UserError(f"neither {train} nor {val} exists; python datasets/check.py lvis says how to get them")
    jobs: tuple[tuple[Path, str, str, Callable[[Any], Any]], ...] = (
        (train, "lvis/lvis_v1_train_norare.json", "lvis without rare, 1", without_rare),
        (train, "metadata/lvis_v1_train_cat_info.json", "category counts, 1", category_info),
        (val, "lvis/lvis_v1_minival.json", "lvis minival, 1", minival),
    )
    made: dict[Path, Outcome] = {}
    for source, output, recipe, make in jobs:
        if source.is_file():
            build = partial(_read_and, make, source)
            made[root / output] = derive_json(root / output, file_inputs(root, source), recipe, build, overwrite)
    return made


def _read_and(make: Callable[[Any], Any], source: Path) -> Any:
    return make(read_annotation_file(source, federated=True))
