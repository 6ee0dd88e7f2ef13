"""Photos that come with the package: what is in them, and whose they are."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pomp.formats import coco_json
from pomp.formats.labelled import LabelledPhoto
from prompt_core.files import read_json

PHOTOS = Path(__file__).resolve().parent / "assets" / "photos"
PHOTOS_FILE = "photos.json"  # COCO, built by tools/build_photos.py
# Words to show each photo with, and what else is in it.
SUGGESTED = {
    "broccoli.jpg": ("broccoli, bowl, noodles, fork", "table, wall"),
    "cat.jpg": ("cat, banana, bird", "tree, sky"),
    "clock.jpg": ("clock, traffic sign, letter", "wall"),
    "desk.jpg": ("monitor, keyboard, laptop, coffee mug, book, telephone", "wall, table, window"),
    "gull.jpg": ("gull, boat, person, aeroplane", "sky, sea, beach"),
    "kitchen.jpg": ("refrigerator, stove, sink, chair, table, saucepan", "wall, floor, curtain"),
    "laptop.jpg": ("laptop, book, sunglasses, mobile phone", "table, wall"),
    "motorcyclist.jpg": ("motorbike, person, helmet, bicycle", "road, sky"),
    "noodles.jpg": ("bowl, fork, noodles, broccoli", "tablecloth"),
    "sandwich.jpg": ("sandwich, paper cup, salad, chair", "table, plate, floor"),
    "street.jpg": ("bus, automobile, pedestrian, scooter", "road, tree, grass"),
    "suitcases.jpg": ("suitcase, handbag, person", "floor, wall"),
}


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
    photos = coco_json.read(PHOTOS / PHOTOS_FILE).photos
    return [replace(photo, path=PHOTOS / photo.name) for photo in sorted(photos, key=lambda photo: photo.name)]


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
