"""Build ``pomp/assets/photos``: photos that may be shown, with what is in them.

    python tools/build_photos.py coco_more/annotations/instances_val2017.json

The document is COCO's, of val2017, next to a folder ``val2017`` with the photos. Chosen by eye among those that COCO
lists under CC BY 2.0: no person in them can be recognised. Photos are copied as they are. ``photos.json`` is a COCO
document, so it is also a file of corrections, without crowds; its images carry licence and sources.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pomp.shipped_photos import PHOTOS, PHOTOS_FILE
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.files import read_json, write_text
from prompt_core.visible import say

CHOSEN = {
    30213: "kitchen",
    62554: "broccoli",
    99053: "noodles",
    126107: "gull",
    165518: "motorcyclist",
    255165: "desk",
    269314: "cat",
    311303: "sandwich",
    423617: "street",
    475678: "suitcases",
    551780: "clock",
    553664: "laptop",
}
LICENCE = 4  # in COCO's list: Attribution


def main() -> None:
    """Parse, copy, write."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("document", type=Path, help="instances_val2017.json")
    arguments = parser.parse_args()
    document = read_json(arguments.document)
    photos = arguments.document.resolve().parent.parent / "val2017"
    images = [_image(image) for image in document["images"] if image["id"] in CHOSEN]
    if len(images) != len(CHOSEN):
        raise UserError(f"{arguments.document} has {len(images)} of the {len(CHOSEN)} photos that are shipped")
    rows = [row for row in document["annotations"] if row["image_id"] in CHOSEN]
    # A crowd is many things in one region, which is no box of one.
    annotations = [_rounded(row) for row in rows if not row["iscrowd"]]
    used = {row["category_id"] for row in annotations}
    PHOTOS.mkdir(parents=True, exist_ok=True)
    for image in images:
        shutil.copyfile(photos / f"{image['id']:012d}.jpg", PHOTOS / image["file_name"])
    result = {
        "info": {
            "description": "Photos of COCO val2017 under CC BY 2.0, made smaller, with COCO's boxes and masks",
            "annotations": "COCO Consortium, CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
            "authors": "COCO names no authors; page_url leads to the photo's page, which does",
        },
        "licenses": [licence for licence in document["licenses"] if licence["id"] == LICENCE],
        "images": images,
        "categories": [category for category in document["categories"] if category["id"] in used],
        "annotations": annotations,
    }
    write_text(PHOTOS / PHOTOS_FILE, json.dumps(result, separators=(",", ":")) + "\n")
    say(f"{len(images)} photos with {len(annotations)} annotations in {PHOTOS}")


def _image(image: dict[str, Any]) -> dict[str, Any]:
    """The entry of a photo.

    Raises:
        UserError: under another licence.
    """
    if image["license"] != LICENCE:
        raise UserError(f"photo {image['id']} is under licence {image['license']}, and {LICENCE} may be shown")
    flickr = Path(image["flickr_url"]).name.split("_")[0]
    kept = {key: image[key] for key in ("id", "width", "height", "license", "flickr_url", "coco_url")}
    return {
        "file_name": f"{CHOSEN[image['id']]}.jpg",
        **kept,
        "page_url": f"https://www.flickr.com/photo.gne?id={flickr}",
    }


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """With a tenth of a pixel; the polygons of the smaller photos carry no more."""
    polygons = [[round(value, 1) for value in polygon] for polygon in row["segmentation"]]
    return {**row, "segmentation": polygons, "bbox": [round(v, 1) for v in row["bbox"]], "area": round(row["area"], 1)}


if __name__ == "__main__":
    run_command(main)
