"""COCO: one JSON document of images, categories and annotations.

Of whole photos, which COCO does not know, an image has ``"words": […]``, the best first (``[]`` for none of these), and
where a model gave them their ``"own_shares"`` and that of ``"none_of_these"``; other tools leave these alone. An
annotation of a model has a ``score``, one of a person has none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from pomp.formats.checked import Collected, Coordinate, Extent, Share, checked_mask, checked_size, checked_word
from pomp.formats.labelled import Corrections, LabelledObject, LabelledPhoto, Photos
from pomp.formats.mask_shapes import box_of_mask, mask_area, polygons_of_mask
from pomp_engine.data.annotation_masks import RunLengths, Side
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import Int64, check_each
from prompt_core.errors import UserError
from prompt_core.photos.json_lists import write_json_lists
from prompt_core.visible import shortened, visible_path

KIND = "coco"
DOCUMENT = "annotations.json"


class ImageRow(msgspec.Struct, gc=False):
    """A photo."""

    id: Int64
    file_name: str
    width: Side | None = None
    height: Side | None = None
    words: list[str] | None = None
    own_shares: list[Share] | None = None
    none_of_these: Share | None = None


class CategoryRow(msgspec.Struct, gc=False):
    """A word."""

    id: Int64
    name: str


class AnnotationRow(msgspec.Struct, gc=False):
    """A thing; a box may be missing where there is a mask."""

    image_id: Int64
    category_id: Int64
    bbox: tuple[Coordinate, Coordinate, Extent, Extent] | None = None
    segmentation: list[list[Coordinate]] | RunLengths | None = None
    iscrowd: int = 0
    score: Share | None = None


def write(photos: Photos, words: Sequence[str], folder: Path) -> None:
    """Write ``annotations.json`` with masks as run lengths."""
    _write(photos, words, folder / DOCUMENT, lambda mask: mask)


def write_with_polygons(photos: Photos, words: Sequence[str], folder: Path) -> None:
    """Write ``annotations.json`` with masks as polygons, for tools that read no run lengths."""
    _write(photos, words, folder / DOCUMENT, polygons_of_mask)


def write_corrections(corrections: Corrections, file: Path) -> None:
    """Write what ``pomp learn`` reads: COCO with run lengths, without scores."""
    _write(lambda: iter(corrections.photos), corrections.words, file, lambda mask: mask, scores=False)


def read(path: Path) -> Corrections:
    """Read a document of any tool; boxes around crowds are left out, since they are no box of one thing.

    Raises:
        UserError: when it does not fit its schema, or names a photo or a category that it has not.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise UserError(f"{visible_path(path)} is no COCO document; an object with 'images' is expected")
    rows = {name: document.get(name) or [] for name in ("images", "categories", "annotations")}
    for (name, listed), schema in zip(rows.items(), (ImageRow, CategoryRow, AnnotationRow), strict=True):
        if not isinstance(listed, list):
            raise UserError(f"{visible_path(path)}: {name} is {shortened(listed)}; a list is expected")
        check_each(listed, schema, path, name)
    where = visible_path(path)
    names = {row["id"]: checked_word(row["name"], f"{where}: categories") for row in rows["categories"]}
    of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    sizes = {row["id"] for row in rows["images"]}
    for number, row in enumerate(rows["annotations"]):
        if row["image_id"] not in sizes or row["category_id"] not in names:
            what = "image" if row["image_id"] not in sizes else "category"
            raise UserError(f"{where}: annotations[{number}] is of {what} {row[f'{what}_id']}, which is not listed")
        of_image[row["image_id"]].append({**row, "place": f"{where}: annotations[{number}]"})
    by_model = any(row.get("score") is not None for row in rows["annotations"])
    collected = Collected(KIND, list(names.values()))
    for row in rows["images"]:
        if of_image[row["id"]] and not (row.get("width") and row.get("height")):
            raise UserError(f"{where}: image {row['id']} has annotations, and no width and height")
        # Label Studio knows no size of photos without annotations.
        size = checked_size(row.get("width") or 0, row.get("height") or 0, f"{where}: image {row['id']}")
        objects = tuple(_objects(of_image[row["id"]], names, row, collected))
        listed = row.get("words")
        photo_words = None if listed is None else tuple(checked_word(word, where) for word in listed)
        shares = tuple(row.get("own_shares") or ())
        if shares and len(shares) != len(photo_words or ()):
            raise UserError(f"{where}: {shortened(row['file_name'])} has {len(shares)} own shares of other words")
        photo = LabelledPhoto(row["file_name"], *size, objects, photo_words, shares)
        # In a document of a model's answers, a photo without any is one of them.
        empty = by_model and not objects and listed is None
        photo = replace(photo, none_share=row.get("none_of_these"), by_model=empty)
        collected.add(photo)
    return collected.corrections()


def _objects(
    rows: list[dict[str, Any]], names: dict[int, str], image: dict[str, Any], collected: Collected
) -> Iterator[LabelledObject]:
    for row in rows:
        if row.get("iscrowd"):
            collected.leave_out("boxes around a crowd")
            continue
        mask = checked_mask(row.get("segmentation"), image["width"], image["height"], row["place"])
        box = row.get("bbox") or (box_of_mask(mask) if mask else None)
        if box is None:
            collected.leave_out("annotations without box and mask")
            continue
        x, y, width, height = (float(value) for value in box)
        yield LabelledObject(names[row["category_id"]], (x, y, width, height), row.get("score"), mask)


def _write(
    photos: Photos, words: Sequence[str], file: Path, shape: Callable[[dict[str, Any]], Any], scores: bool = True
) -> None:
    numbers = {word: number for number, word in enumerate(words, start=1)}
    lists = {
        "images": (_image(number, photo, scores) for number, photo in enumerate(photos(), start=1)),
        "categories": ({"id": number, "name": word} for word, number in numbers.items()),
        "annotations": _annotations(photos(), numbers, shape, scores),
    }
    write_json_lists(file, lists)


def _image(number: int, photo: LabelledPhoto, scores: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"id": number, "file_name": photo.name, "width": photo.width, "height": photo.height}
    if photo.words is not None:
        row["words"] = list(photo.words)
    if photo.scores and scores:
        row["own_shares"] = list(photo.scores)
    if photo.none_share is not None and scores:
        row["none_of_these"] = photo.none_share
    return row


def _annotations(
    photos: Iterator[LabelledPhoto], numbers: dict[str, int], shape: Callable[[dict[str, Any]], Any], scores: bool
) -> Iterator[dict[str, Any]]:
    identity = 0
    for image, photo in enumerate(photos, start=1):
        for item in photo.objects:
            identity += 1
            row: dict[str, Any] = {"id": identity, "image_id": image, "category_id": numbers[item.word]}
            row |= {"bbox": list(item.box), "iscrowd": 0, "area": item.box[2] * item.box[3]}
            if item.mask is not None:
                row |= {"segmentation": shape(item.mask), "area": mask_area(item.mask)}
            if scores and item.score is not None:
                row["score"] = item.score
            yield row
