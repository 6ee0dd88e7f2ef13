"""Photos that come with the package: what is in them, and whose they are."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp.formats.labelled import LabelledObject, LabelledPhoto
from prompt_core.files import read_json

PHOTOS = Path(__file__).resolve().parent / "assets" / "photos"
PHOTOS_FILE = "photos.json"  # COCO, built by tools/build_photos.py


@dataclass(frozen=True)
class Credit:
    """Where a photo comes from.

    Attributes:
        photo: COCO's number of it, in val2017.
        page: of the photo, where its author is named.
        source: the file that COCO took.
        licence: its name.
        licence_page: its text.
    """

    photo: int
    page: str
    source: str
    licence: str
    licence_page: str


def shipped_photos() -> list[LabelledPhoto]:
    """The photos with the boxes and masks that COCO's annotators gave them, by name."""
    document = _document()
    words = {category["id"]: category["name"] for category in document["categories"]}
    objects: dict[int, list[LabelledObject]] = {image["id"]: [] for image in document["images"]}
    for row in document["annotations"]:
        if row["iscrowd"]:  # many things in one region, which is no box of one
            continue
        objects[row["image_id"]].append(LabelledObject(words[row["category_id"]], tuple(row["bbox"])))
    photos = [
        LabelledPhoto(
            image["file_name"],
            image["width"],
            image["height"],
            tuple(objects[image["id"]]),
            path=PHOTOS / image["file_name"],
        )
        for image in document["images"]
    ]
    return sorted(photos, key=lambda photo: photo.name)


def photo_credits() -> dict[str, Credit]:
    """The credit of each photo, by its name."""
    document = _document()
    licences = {licence["id"]: licence for licence in document["licenses"]}
    return {image["file_name"]: _credit(image, licences[image["license"]]) for image in document["images"]}


def _credit(image: dict[str, Any], licence: dict[str, Any]) -> Credit:
    name = "CC BY 2.0" if licence["url"].rstrip("/").endswith("/by/2.0") else str(licence["name"])
    return Credit(image["id"], image["page_url"], image["flickr_url"], name, licence["url"])


@functools.cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = read_json(PHOTOS / PHOTOS_FILE)
    return document
