"""Label maps: for each photo a PNG whose pixels have the number of a word, and 0 where there is none.

``classes.csv`` has the words with their numbers, from 1. Where masks overlap, the smaller one is on top.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pomp.formats.checked import Collected, checked_word
from pomp.formats.folders import PhotoTable, known_photos, whole_folder
from pomp.formats.labelled import Corrections, LabelledObject, LabelledPhoto, Photos
from pomp.formats.mask_shapes import box_of_mask, mask_area, mask_of_pixels, pixels_of_mask
from pomp_seg.data.label_maps import read_label_map, write_label_map
from prompt_core.documents.csv_tables import read_table
from prompt_core.errors import UserError
from prompt_core.visible import visible_path

KIND = "class-ids"
CLASSES, LABELS, IMAGES = "classes.csv", "labels", "images"


def write(photos: Photos, words: Sequence[str], target: Path) -> None:
    """Write the folder.

    Raises:
        UserError: when a thing has no mask.
    """
    numbers = {word: number for number, word in enumerate(words, start=1)}
    with whole_folder(target) as folder:
        (folder / LABELS).mkdir()
        with open(folder / CLASSES, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("id", "name"), *((number, word) for word, number in numbers.items())])
        with PhotoTable(folder, IMAGES) as table:
            for photo in photos():
                name = os.path.splitext(table.add(photo))[0]  # noqa: PTH122
                write_label_map(folder / LABELS / f"{name}.png", _labels(photo, numbers), len(words) + 1)


def _labels(photo: LabelledPhoto, numbers: dict[str, int]) -> np.ndarray:
    labels = np.zeros((photo.height, photo.width), dtype=np.uint16)
    masks = [(item.word, item.mask) for item in photo.objects if item.mask is not None]
    if len(masks) < len(photo.objects):
        raise UserError(
            f"class-id PNGs need masks, and {visible_path(photo.name)} has boxes only; choose a model with masks, or "
            "another format"
        )
    for word, mask in sorted(masks, key=lambda pair: -mask_area(pair[1])):
        labels[pixels_of_mask(mask)] = numbers[word]
    return labels


def read(path: Path) -> Corrections:
    """Read a folder of label maps: of each word in a photo one thing, which is all of its pixels.

    Raises:
        UserError: for a label map with other numbers than those of ``classes.csv``.
    """
    _, rows = read_table(path / CLASSES)
    where = visible_path(path / CLASSES)
    words = {row.get("id", ""): checked_word(row.get("name", ""), where) for row in rows}
    known = {os.path.splitext(file)[0]: photo for file, photo in known_photos(path).items()}  # noqa: PTH122
    order = {stem: number for number, stem in enumerate(known)}
    collected = Collected(KIND, list(words.values()))
    for file in sorted((path / LABELS).glob("*.png"), key=lambda file: (order.get(file.stem, len(order)), file.name)):
        labels = read_label_map(file)
        objects = []
        for number in np.unique(labels[labels > 0]).tolist():
            if str(number) not in words:
                raise UserError(f"{visible_path(file)} has the number {number}, which {where} does not list")
            mask = mask_of_pixels(labels == number)
            objects.append(LabelledObject(words[str(number)], box_of_mask(mask), None, mask))
        name = known[file.stem][0] if file.stem in known else file.name
        collected.add(LabelledPhoto(name, labels.shape[1], labels.shape[0], tuple(objects)))
    return collected.corrections()
