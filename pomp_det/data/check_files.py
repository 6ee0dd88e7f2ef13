"""Checks of detection data sets: what is present, missing or wrong, with exact paths and how to get each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import check_vocabulary, photo_path, read_annotation_file, second_folder
from pomp_det.data.catalog import CATALOG, DatasetEntry
from pomp_det.data.usable_boxes import usable_annotations
from pomp_engine.data.derived_files import source_record, state_of
from prompt_core.data.check import MISSING, PRESENT, WRONG, Finding
from prompt_core.data.photo_files import refuse_link_outside
from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_file
from prompt_core.vocabulary import Vocabulary

__all__ = ["MISSING", "PRESENT", "WRONG", "Finding", "check_entry", "check_group"]


def check_group(group: str, root: Path) -> list[Finding]:
    """Look at every data set of a group: ``lvis``, ``coco``, ``objects365``, ``imagenet_lvis``, ``shapes``, ``all``.

    Raises:
        UserError: for an unknown group.
    """
    return CATALOG.check(group, root, check_entry)


def check_entry(entry: DatasetEntry, root: Path) -> list[Finding]:
    """The annotation file (keys, classes, boxes, number of images) and every photo that it lists."""
    path = entry.annotation_file(root)
    advice = entry.advice(root)
    if not path.is_file():
        return [Finding(entry.name, path, MISSING, "annotations", advice), *_folder(entry, root)]
    labels = entry.kind == "image_labels"
    try:
        document = read_annotation_file(path, federated=entry.kind == "lvis", image_labels=labels)
        if entry.vocabulary is not None:
            classes = Vocabulary.load(entry.vocabulary)
            check_vocabulary(path, document["categories"], classes.names, classes.ids or [], "use the published file")
        _, problems = usable_annotations(path, document["images"], document["annotations"])
    except UserError as error:
        return [Finding(entry.name, path, WRONG, str(error), advice), *_folder(entry, root)]
    counted = f"{len(document['images']):,} images, {len(document['annotations']):,} annotations"
    wrong = _out_of_date(path, root)
    if entry.image_count is not None and len(document["images"]) != entry.image_count:
        wrong = f"{counted}; the published file lists {entry.image_count:,} images"
    noticed = "; ".join([counted, *problems.lines()])
    state = WRONG if wrong else PRESENT
    finding = Finding(entry.name, path, state, wrong or noticed, advice if wrong else "")
    return [finding, _photos(entry, root, document)]


def _folder(entry: DatasetEntry, root: Path) -> list[Finding]:
    """Without annotations, only the existence of the folder of photos can be checked."""
    folder = root / entry.images
    if folder.is_dir():
        return [Finding(entry.name, folder, PRESENT, "photos; not counted without annotations")]
    return [Finding(entry.name, folder, MISSING, "photos", entry.images_advice(root))]


def _photos(entry: DatasetEntry, root: Path, document: dict[str, Any]) -> Finding:
    folder = root / entry.images
    # Photos of one archive share its path: it is looked for once.
    images = [image for image in document["images"] if "file_name" in image or "coco_url" in image]
    path = entry.annotation_file(root)
    try:
        above = second_folder(path)
        paths = {photo_path(folder, image, entry.kind == "lvis", path, above) for image in images}
        for photo in paths:
            refuse_link_outside(folder, Path(photo), path)
    except UserError as error:
        return Finding(entry.name, folder, WRONG, str(error), entry.images_advice(root))
    missing = sorted(path for path in paths if not Path(path).is_file())
    count = len(images)
    if not missing:
        archives = f" in {len(paths):,} files" if len(paths) < count else ""
        return Finding(entry.name, folder, PRESENT, f"{count:,} photos{archives}")
    first = os.path.relpath(missing[0], folder)
    detail = f"{len(missing):,} of {len(paths):,} files are missing, the first is {first}"
    return Finding(entry.name, folder, MISSING, detail, entry.images_advice(root))


def _out_of_date(path: Path, root: Path) -> str | None:
    """A derived file that was changed, or whose inputs have changed since."""
    record = source_record(path)
    if not record.is_file():
        return None
    try:
        known = read_json(record)
    except UserError as error:
        return str(error)
    inputs = known.get("inputs", {}) if isinstance(known, dict) else {}
    # Inputs that are not files below the root (a list of photos) cannot be compared here.
    present = {
        name: sha256_of_file(root / name) if (root / name).is_file() else digest for name, digest in inputs.items()
    }
    return state_of(path, present)
