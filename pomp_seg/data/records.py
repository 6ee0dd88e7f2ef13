"""Label images and their photos as Detectron2's dataset dictionaries."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_engine.data.derived_files import source_record
from pomp_seg.data.catalog import SegmentationEntry
from prompt_core.data.photo_files import PHOTO_ENDINGS
from prompt_core.documents.schema import check
from prompt_core.errors import UserError
from prompt_core.files import read_json
from prompt_core.visible import shortened

Records = list[dict[str, Any]]
LABEL_ENDINGS = (".png", ".tif", ".tiff")
# TIFF files in the folder of photos are treated as labels.
_PHOTO_ENDINGS = tuple(ending for ending in PHOTO_ENDINGS if ending not in (".tif", ".tiff"))

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelFolder:
    """Where the label images and photos of one data set are.

    Attributes:
        name: of the data set.
        labels: folder of label images, which decide what belongs to the set; they may lie deeper.
        images: folder of photos, which may lie deeper, and may hold photos of other sets.
        label_suffix, image_suffix: what follows the part of the file name that label and photo share.
        label_counts: JSON ``{label file: [classes]}``; with it there is one record of each image and class.
        every_photo: whether a photo without a label is an error.
        advice, images_advice: how to get labels and photos, for messages.
    """

    name: str
    labels: Path
    images: Path
    label_suffix: str = ""
    image_suffix: str = ""
    label_counts: Path | None = None
    every_photo: bool = False
    advice: str = "correct the folder of labels"
    images_advice: str = "correct the folder of photos"


def label_folder(entry: SegmentationEntry, root: Path) -> LabelFolder:
    """The folders of a known data set below ``root``."""
    return LabelFolder(
        entry.name,
        root / entry.labels,
        entry.image_folder(root),
        entry.label_suffix,
        entry.image_suffix,
        root / entry.label_counts if entry.label_counts else None,
        advice=entry.advice(root),
        images_advice=entry.images_advice(root),
    )


def load_records(folder: LabelFolder, num_classes: int | None = None) -> Records:
    """The records of a data set, sorted by the names of their labels.

    A record has ``file_name``, ``sem_seg_file_name``, ``image_id`` (the name that both share) and ``meta`` with the
    name of the data set; with label counts also ``category_id``. Photos are not opened: the mappers fill in ``height``
    and ``width``.

    Args:
        num_classes: with label counts, the number of classes that they may name.

    Raises:
        UserError: missing folders, a label without a photo, labels that are still being prepared, label counts of
            other files or classes; with ``every_photo`` also a photo without a label.
    """
    check_prepared(folder)
    labels = files_by_key(folder.labels, LABEL_ENDINGS, folder.label_suffix)
    photos = files_by_key(folder.images, _PHOTO_ENDINGS, folder.image_suffix)
    if not labels:
        raise UserError(f"data set {folder.name!r}: {folder.labels} holds no label images; {folder.advice}")
    _check_pairs(folder, labels, photos)
    records = [
        {
            "file_name": photos[key],
            "sem_seg_file_name": labels[key],
            "image_id": key,
            "meta": {"dataset_name": folder.name},
        }
        for key in sorted(labels)
    ]
    if folder.label_counts is None:
        return records
    counts = read_label_counts(folder.label_counts, num_classes, folder.advice)
    return _one_of_each_class(folder, records, counts)


def files_by_key(folder: Path, endings: Iterable[str], suffix: str = "") -> dict[str, str]:
    """``{key: path}`` of the files below ``folder`` that end in ``suffix`` and one of ``endings``.

    The key is the file name without both; it has to be unique, whichever folder the file is in.

    Raises:
        UserError: when two files have the same key.
    """
    wanted = tuple(endings)
    files: dict[str, str] = {}
    for place, subfolders, names in os.walk(folder):
        subfolders.sort()
        for name in names:
            # Plain texts: a Path for each of a hundred thousand files takes seconds.
            stem, ending = os.path.splitext(name)  # noqa: PTH122
            if ending.lower() not in wanted or not stem.endswith(suffix) or name.startswith("."):
                continue
            key = stem[: len(stem) - len(suffix)]
            path = os.path.join(place, name)  # noqa: PTH118
            if key in files:
                raise UserError(f"{path} and {files[key]} have the same name; expected one file for each")
            files[key] = path
    return files


def read_label_counts(path: Path, num_classes: int | None, advice: str) -> dict[str, list[int]]:
    """``{key of the label: class indices}`` of a label-count file, as ZSSeg's tools write it.

    Raises:
        UserError: when it is absent or not of this format, or names classes beyond ``num_classes``.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; {advice}")
    document = read_json(path)
    try:
        check(document, dict[str, list[Any]], path)
    except UserError as error:
        raise UserError(f"{error}; expected an object {{label file: [classes]}}; {advice}") from error
    expected = "whole numbers from 0" if num_classes is None else f"0..{num_classes - 1}"
    for file, classes in document.items():
        wrong = next((value for value in classes if not _is_class(value, num_classes)), None)
        if wrong is not None:
            # Counts of all classes with labels of the base classes: a mistake in a published recipe.
            raise UserError(
                f"{path} gives {file} the class {shortened(wrong)}; expected {expected}; count the labels of this "
                "data set again"
            )
    return {Path(file).stem: sorted(set(classes)) for file, classes in document.items()}


def _is_class(value: Any, num_classes: int | None) -> bool:
    return type(value) is int and value >= 0 and (num_classes is None or value < num_classes)


def check_prepared(folder: LabelFolder) -> None:
    """Refuse a folder that is absent, or whose preparation was interrupted.

    Raises:
        UserError: in these cases.
    """
    if not folder.labels.is_dir():
        raise UserError(f"data set {folder.name!r} needs {folder.labels}, which does not exist; {folder.advice}")
    if not folder.images.is_dir():
        raise UserError(f"data set {folder.name!r} needs {folder.images}, which does not exist; {folder.images_advice}")
    record = source_record(folder.labels)
    if record.is_file():
        known = read_json(record)
        if isinstance(known, dict) and known.get("complete") is False:
            raise UserError(f"{folder.labels} is not complete: its preparation was interrupted; {folder.advice}")


def _check_pairs(folder: LabelFolder, labels: Mapping[str, str], photos: Mapping[str, str]) -> None:
    alone = sorted(set(labels) - set(photos))
    if alone:
        raise UserError(
            f"data set {folder.name!r}: {len(alone)} of {len(labels)} labels have no photo below {folder.images}, the "
            f"first is {labels[alone[0]]}; {folder.images_advice}"
        )
    without = sorted(set(photos) - set(labels))
    if without and folder.every_photo:
        raise UserError(
            f"data set {folder.name!r}: {len(without)} of {len(photos)} photos have no label file below "
            f"{folder.labels}, the first is {photos[without[0]]}; add the label files, or move the photos away"
        )
    _logger.info("%s: %d labels, %d photos without one", folder.name, len(labels), len(without))


def _one_of_each_class(folder: LabelFolder, records: Records, counts: Mapping[str, list[int]]) -> Records:
    known = {record["image_id"] for record in records}
    # Keys of counts are stems of label files, with the suffix that labels may have.
    of_key = {stem[: len(stem) - len(folder.label_suffix)]: classes for stem, classes in counts.items()}
    missing = sorted(set(of_key) - known)
    if missing:
        raise UserError(
            f"{folder.label_counts} lists {len(missing)} label files that are not in {folder.labels}, the first is "
            f"{missing[0]}; {folder.advice}"
        )
    uncounted = sorted(known - set(of_key))
    if uncounted:
        raise UserError(
            f"{folder.label_counts} lacks {len(uncounted)} label files of {folder.labels}, the first is "
            f"{uncounted[0]}; {folder.advice}"
        )
    return [{**record, "category_id": category} for record in records for category in of_key[record["image_id"]]]
