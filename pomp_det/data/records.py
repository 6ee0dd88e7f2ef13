"""Annotation files as Detectron2's dataset dictionaries, with contiguous class indices.

Detectron2's own loaders of COCO and LVIS files assert or ignore faults of a file, and the one of LVIS needs
lvis-api, which NumPy 1.24 broke; these name faults and count what is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from pomp_det.data.annotation_files import check_vocabulary, photo_path, read_annotation_file, second_folder
from pomp_det.data.usable_boxes import Problems, usable_annotations
from pomp_engine.data.annotation_masks import is_polygon
from prompt_core.data.photo_files import is_file, refuse_link_outside
from prompt_core.errors import UserError
from prompt_core.visible import visible_path
from prompt_core.vocabulary import Vocabulary

Records = list[dict[str, Any]]
# How many of the listed photos are looked for before training.
CHECKED_PHOTOS = 16

_logger = logging.getLogger(__name__)


def categories_as_vocabulary(categories: Sequence[Mapping[str, Any]], source: str) -> Vocabulary:
    """COCO or LVIS categories, sorted by id, as a vocabulary."""
    ordered = sorted(categories, key=lambda category: category["id"])

    def column(key: str) -> list[Any] | None:
        return [category[key] for category in ordered] if all(key in category for category in ordered) else None

    names = [category["name"] for category in ordered]
    ids = [category["id"] for category in ordered]
    return Vocabulary(names, ids, column("synset"), column("synonyms"), column("frequency"), source)


def load_boxes(
    json_file: str | Path,
    image_root: str | Path,
    vocabulary: Vocabulary | None = None,
    federated: bool = False,
    advice: str = "use the published file",
) -> tuple[Records, Vocabulary, Problems]:
    """Records of a COCO or LVIS file: boxes, masks where the file has them, class indices 0..C-1.

    ``image_root`` is joined with ``file_name``; in LVIS v1 files, which have none, with the last two parts of
    ``coco_url`` (``val2017/000000000139.jpg``).

    Args:
        vocabulary: the classes that a class index counts; None takes the file's categories in the order of their ids.
        federated: the file is LVIS's; records then carry its two lists of category ids.
        advice: what to do when the classes differ.

    Returns:
        the records in the order of image ids, the classes, and what was dropped.

    Raises:
        UserError: as :func:`read_annotation_file` and :func:`usable_annotations`, or when photos are missing.
    """
    document = read_annotation_file(json_file, federated=federated)
    classes = _classes(json_file, document["categories"], vocabulary, advice)
    index = _class_indices(classes)
    by_image, problems = usable_annotations(json_file, document["images"], document["annotations"])
    records: Records = []
    above = second_folder(json_file)
    for image in sorted(document["images"], key=lambda image: image["id"]):
        record = _image_record(image, json_file, image_root, federated, above)
        if federated:
            record["neg_category_ids"] = image["neg_category_ids"]
            record["not_exhaustive_category_ids"] = image["not_exhaustive_category_ids"]
        record["annotations"] = [_instance(annotation, index) for annotation in by_image[image["id"]]]
        records.append(record)
    _check_photos(json_file, image_root, records)
    _report(json_file, records, problems)
    return records, classes, problems


def load_image_labels(
    json_file: str | Path,
    image_root: str | Path,
    vocabulary: Vocabulary | None = None,
    advice: str = "use the published file",
) -> tuple[Records, Vocabulary, Problems]:
    """Records of photos whose classes are known but not their places, as in ImageNet-LVIS.

    A record has ``pos_category_ids`` (class indices), no annotations, and ``captions`` if the file has them. A photo
    inside an archive has ``tar``: path, offset and size in bytes (:mod:`pomp_engine.data.tar_images`); or ``tar_index``
    where the file only has that number (:mod:`pomp_det.data.tar_index`).

    Raises:
        UserError: as :func:`load_boxes`; also when a photo has no class.
    """
    document = read_annotation_file(json_file, image_labels=True)
    classes = _classes(json_file, document["categories"], vocabulary, advice)
    index = _class_indices(classes)
    problems = Problems()
    records: Records = []
    above = second_folder(json_file)
    for image in sorted(document["images"], key=lambda image: image["id"]):
        labels = image.get("pos_category_ids") or []
        if not labels and not image.get("captions"):
            problems.add("photos dropped (no class)", f"image {image['id']}")
            continue
        record = _image_record(image, json_file, image_root, False, above)
        record["pos_category_ids"] = [index[value] for value in labels]
        record["annotations"] = []
        if image.get("captions") is not None:
            record["captions"] = list(image["captions"])
        if "tar" in image:
            archive = record["file_name"]
            record["tar"] = (archive, int(image["offset"]), int(image["size"]))
            record["file_name"] = f"{archive}/{Path(image['file_name']).name}"
        records.append(record)
    if not records:
        raise UserError(f"{json_file}: no photo has a class in 'pos_category_ids'")
    _check_photos(json_file, image_root, records)
    _report(json_file, records, problems)
    return records, classes, problems


def _classes(
    json_file: str | Path, categories: Sequence[Mapping[str, Any]], vocabulary: Vocabulary | None, advice: str
) -> Vocabulary:
    if vocabulary is None:
        return categories_as_vocabulary(categories, Path(json_file).name)
    assert vocabulary.ids is not None
    check_vocabulary(json_file, categories, vocabulary.names, vocabulary.ids, advice)
    return vocabulary


def _class_indices(classes: Vocabulary) -> dict[Any, int]:
    assert classes.ids is not None
    return {category: index for index, category in enumerate(classes.ids)}


def _image_record(
    image: Mapping[str, Any], json_file: str | Path, root: str | Path, federated: bool, above: str
) -> dict[str, Any]:
    if "tar_index" in image and "file_name" not in image:
        place = {"file_name": f"tar_index {image['tar_index']}", "tar_index": int(image["tar_index"])}
    else:
        place = {"file_name": photo_path(root, image, federated, json_file, above)}
    return place | {
        "height": image["height"],
        "width": image["width"],
        "image_id": image["id"],
    }


def _instance(annotation: Mapping[str, Any], index: Mapping[Any, int]) -> dict[str, Any]:
    instance: dict[str, Any] = {
        "bbox": list(annotation["bbox"]),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": index[annotation["category_id"]],
        "iscrowd": annotation.get("iscrowd", 0),
    }
    mask = annotation.get("segmentation")
    if isinstance(mask, list) and mask:
        instance["segmentation"] = [polygon for polygon in mask if is_polygon(polygon)]
    elif isinstance(mask, dict) and mask:
        instance["segmentation"] = _compressed(mask)
    return instance


def _compressed(mask: dict[str, Any]) -> dict[str, Any]:
    """Detectron2 decodes compressed run lengths only."""
    if not isinstance(mask["counts"], list):
        return mask
    import pycocotools.mask as mask_utils

    compressed: dict[str, Any] = mask_utils.frPyObjects(mask, *mask["size"])
    return compressed


def _check_photos(json_file: str | Path, root: str | Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Look for a few photos across the list: a wrong folder shows at once, without asking for a million files."""
    step = max(1, len(records) // CHECKED_PHOTOS)
    for record in records[::step]:
        if "tar_index" in record:
            continue
        path = Path(record["tar"][0] if "tar" in record else record["file_name"])
        if not is_file(path):
            raise UserError(f"{json_file} lists the photo {visible_path(path)}, which does not exist; put it there")
        refuse_link_outside(Path(root), path, json_file)


def _report(json_file: str | Path, records: Records, problems: Problems) -> None:
    boxes = sum(len(record["annotations"]) for record in records)
    _logger.info("%s: %d images, %d boxes", json_file, len(records), boxes)
    for line in problems.lines():
        _logger.warning("%s: %s", json_file, line)
