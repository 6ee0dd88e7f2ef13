"""Reading COCO and LVIS annotation files, checked before any training.

The schema is :mod:`pomp_det.data.annotation_schema`. What makes a file unusable (a missing key, an unknown category, a
repeated id) raises an error that names the file, the place and what to do. What training can do without (a box outside
the image, a box of no size) is dropped and listed by :mod:`pomp_det.data.usable_boxes`; of what is scored against,
every box has to be usable.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_schema import (
    Annotation,
    Category,
    FederatedCategory,
    FederatedImage,
    Image,
    ScoredAnnotation,
)
from pomp_engine.data.annotation_masks import mask_fault
from pomp_engine.data.derived_files import read_record
from prompt_core.data.photo_files import inside
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import check_each
from prompt_core.errors import UserError
from prompt_core.vocabulary import plain_name


def read_annotation_file(path: str | Path, federated: bool = False, image_labels: bool = False) -> dict[str, Any]:
    """Read a COCO or LVIS file and check that every key is there.

    Args:
        federated: also ask for LVIS's ``neg_category_ids``, ``not_exhaustive_category_ids`` and ``frequency``.
        image_labels: images carry ``pos_category_ids`` or ``captions``.

    Raises:
        UserError: the file is absent or no JSON, a key is missing, an id repeats or refers to nothing.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: a COCO or LVIS object was expected, found a {type(document).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            hint = "image lists of test sets have no annotations and cannot be used" if key == "annotations" else ""
            raise UserError(
                f"{path}: the list {key!r} is missing; expected a COCO or LVIS annotation file{'; ' * bool(hint)}{hint}"
            )
    if not document["images"]:
        raise UserError(f"{path} lists no images")
    if not document["categories"]:
        raise UserError(f"{path} lists no categories")
    check_each(document["images"], FederatedImage if federated else Image, path, "images")
    check_each(document["categories"], FederatedCategory if federated else Category, path, "categories")
    check_each(document["annotations"], Annotation, path, "annotations")
    images = _unique(path, "image", document["images"])
    categories = _unique(path, "category", document["categories"])
    _unique(path, "annotation", document["annotations"])
    _check_places(path, document["images"])
    _check_references(path, document["annotations"], images, categories)
    lists: tuple[str, ...] = ()
    if federated:
        _check_frequencies(path, document["categories"])
        lists = ("neg_category_ids", "not_exhaustive_category_ids")
    if image_labels:
        lists = ("pos_category_ids",)
        for number, image in enumerate(document["images"]):
            if "captions" not in image and "pos_category_ids" not in image:
                raise UserError(f"{path}: images[{number}] has no 'pos_category_ids' and no 'captions'; add one")
    for key in lists:
        _check_category_lists(path, document["images"], key, categories)
    return document


def read_scored_annotations(path: str | Path, federated: bool = False) -> dict[str, Any]:
    """Read a COCO or LVIS file that predictions are scored against; every box and mask has to be usable.

    Training drops a few boxes that it cannot use; a scorer counts them, or stops after the inference.

    Raises:
        UserError: as :func:`read_annotation_file`; also for a box that is not four finite numbers of no negative size,
            masks without a polygon of three points, or run lengths that do not fill their image.
    """
    document = read_annotation_file(path, federated)
    check_each(document["annotations"], ScoredAnnotation, path, "annotations")
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    for number, annotation in enumerate(document["annotations"]):
        segmentation = annotation.get("segmentation")
        if not segmentation:
            continue
        fault = mask_fault(segmentation, *sizes[annotation["image_id"]])
        # Scorers draw nothing of a polygon of one or two points beside a whole one.
        if fault is None and isinstance(segmentation, list) and any(len(polygon) % 2 for polygon in segmentation):
            fault = "polygon of an odd number of coordinates"
        if fault is not None:
            raise UserError(
                f"{path}: annotations[{number}].segmentation (id {annotation['id']}) cannot be used: {fault}; "
                "polygons x, y, x, y, … or run lengths of the whole image are expected"
            )
    return document


def read_categories(path: str | Path) -> list[dict[str, Any]]:
    """Only the categories of a COCO or LVIS file, checked.

    Raises:
        UserError: the file is absent or no JSON, lists no categories, or one lacks its id or name.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("categories"), list) or not document["categories"]:
        raise UserError(f"{path} lists no categories; expected a COCO or LVIS annotation file")
    categories: list[dict[str, Any]] = document["categories"]
    check_each(categories, Category, path, "categories")
    _unique(path, "category", categories)
    return categories


def second_folder(path: str | Path) -> str:
    """Another folder of photos, relative to the registered one, that a list that was prepared here names.

    Its record says it (:mod:`pomp_engine.data.derived_files`); an empty text for none.
    """
    inputs = (read_record(Path(path)) or {}).get("inputs")
    return str(inputs.get("place", "")) if isinstance(inputs, dict) else ""


def photo_path(
    root: str | Path, image: Mapping[str, Any], federated: bool = False, listed_in: str | Path = "", above: str = ""
) -> str:
    """Path of the photo of an image entry; for a photo inside an archive, path of the archive.

    Joined without ``..``: the photos may be next to a folder that does not exist.

    Args:
        root: folder of the photos.
        federated: take the last two parts of ``coco_url`` first, which LVIS v1 has in place of ``file_name``.
        listed_in: the file that lists it, for messages.
        above: a folder, relative to ``root``, that names may begin with although it is not below ``root``.

    Raises:
        UserError: when the name leads out of these folders.
    """
    if "tar" in image:
        name = str(image["tar"])
    elif federated and "coco_url" in image:
        name = "/".join(str(image["coco_url"]).split("/")[-2:])
    else:
        name = str(image.get("file_name") or str(image["coco_url"]).rsplit("/", 1)[-1])
    below = name.removeprefix(f"{above}/") if above else name
    inside(below, f"{listed_in}: the photo of image id {image['id']}")
    return os.path.normpath(Path(root) / name)


def _unique(path: str | Path, what: str, items: Sequence[Mapping[str, Any]]) -> set[Any]:
    ids = {item["id"] for item in items}
    if len(ids) != len(items):
        repeated = next(value for value, count in Counter(item["id"] for item in items).items() if count > 1)
        raise UserError(f"{path}: {what} id {repeated} occurs more than once; each needs its own id")
    return ids


def _check_places(path: str | Path, images: Sequence[Mapping[str, Any]]) -> None:
    for number, image in enumerate(images):
        if "tar_index" not in image and not (image.get("file_name") or image.get("coco_url")):
            raise UserError(f"{path}: images[{number}] (id {image['id']}) has neither 'file_name' nor 'coco_url'")


def _check_references(
    path: str | Path, annotations: Sequence[Mapping[str, Any]], images: set[Any], categories: set[Any]
) -> None:
    for annotation in annotations:
        if annotation["category_id"] not in categories:
            raise UserError(
                f"{path}: annotation id {annotation['id']} has category_id {annotation['category_id']}, "
                "which is not among the categories"
            )
        if annotation["image_id"] not in images:
            raise UserError(
                f"{path}: annotation id {annotation['id']} is of image_id {annotation['image_id']}, "
                "which is not among the images"
            )


def _check_frequencies(path: str | Path, categories: Sequence[Mapping[str, Any]]) -> None:
    for category in categories:
        if category["frequency"] not in ("r", "c", "f"):
            raise UserError(
                f"{path}: category {category['name']!r} has frequency {category['frequency']!r}, not r, c, f"
            )


def _check_category_lists(path: str | Path, images: Iterable[Mapping[str, Any]], key: str, known: set[Any]) -> None:
    for image in images:
        for value in image.get(key) or ():
            if value not in known:
                raise UserError(
                    f"{path}: image id {image['id']} lists category {value} in {key!r}, "
                    "which is not among the categories"
                )


def check_vocabulary(
    path: str | Path,
    categories: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    ids: Sequence[int | str],
    advice: str,
) -> None:
    """Check that a file's categories are classes of a vocabulary, with the same ids and names.

    Raises:
        UserError: naming the first category that is not, and ``advice``.
    """
    of_id = dict(zip(ids, names, strict=True))
    wrong = [
        category
        for category in categories
        if plain_name(of_id.get(category["id"], "")) != plain_name(category["name"]) or category["id"] not in of_id
    ]
    if wrong:
        first = wrong[0]
        expected = repr(of_id[first["id"]]) if first["id"] in of_id else "no class of this id"
        raise UserError(
            f"{path}: {len(wrong)} of {len(categories)} categories differ from the {len(names)} expected classes; "
            f"the first is id {first['id']}, {first['name']!r}, expected {expected}; {advice}"
        )
