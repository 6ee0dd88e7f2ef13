"""Objects365 v2 with corrected class names, and without the listed photos that do not exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import read_annotation_file
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json

# The published names hold thirteen misspellings; Detic and POMP embed the corrected names. Other odd names stay as
# published ("Noddles", "Table Tennis " with a space at its end).
CORRECTIONS = {
    "Moniter/TV": "Monitor/TV",
    "Bakset": "Basket",
    "Dinning Table": "Dining Table",
    "Tea pot": "Teapot",
    "Extention Cord": "Extension Cord",
    "Hotair ballon": "Hot air balloon",
    "Hamimelon": "Hami melon",
    "Mushroon": "Mushroom",
    "Tape Measur/ Ruler": "Tape Measure/ Ruler",
    "Campel": "Camel",
    "Meat ball": "Meatball",
    "Buttefly": "Butterfly",
    "Table Teniis paddle": "Table Tennis paddle",
}


def correct_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Objects365 with the corrected names; everything else as it is."""
    categories = [
        {**category, "name": CORRECTIONS.get(category["name"], category["name"])} for category in document["categories"]
    ]
    return {**document, "categories": categories}


def existing_photos(document: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Only the photos that exist below ``folder``, and the file names of the others.

    The training file names photos ``images/v1/patch0/NAME.jpg`` while the archives unpack to ``patch0/NAME.jpg``:
    either place is accepted, and ``file_name`` is set to the one that exists.
    """
    images, missing = [], []
    for image in document["images"]:
        name = str(image.get("file_name") or image["coco_url"])
        places = [name, "/".join(Path(name).parts[-2:])]
        existing = next((place for place in places if (folder / place).is_file()), None)
        if existing is None:
            missing.append(name)
        else:
            images.append({**image, "file_name": existing})
    image_ids = {image["id"] for image in images}
    annotations = [annotation for annotation in document["annotations"] if annotation["image_id"] in image_ids]
    return {**document, "images": images, "annotations": annotations}, missing


def prepare_objects365(root: Path, overwrite: bool = False) -> tuple[dict[Path, Outcome], list[str]]:
    """Make the validation and training files whose source exists.

    Returns:
        what was done, and the training photos that do not exist.

    Raises:
        UserError: when no source exists, or all training photos are missing.
    """
    folder = root / "objects365/annotations"
    train, val = folder / "zhiyuan_objv2_train.json", folder / "zhiyuan_objv2_val.json"
    if not train.is_file() and not val.is_file():
        raise UserError(f"neither {val} nor {train} exists; python datasets/check.py objects365 says how to get them")
    made: dict[Path, Outcome] = {}
    missing: list[str] = []
    if val.is_file():
        output = folder / "zhiyuan_objv2_val_fixname.json"
        made[output] = derive_json(
            output,
            file_inputs(root, val),
            "objects365 names, 1",
            lambda: correct_names(read_annotation_file(val)),
            overwrite,
        )
    if train.is_file():
        output = folder / "zhiyuan_objv2_train_fixname_fixmiss.json"
        document, missing = existing_photos(read_annotation_file(train), root / "objects365/train")
        if not document["images"]:
            raise UserError(f"none of the photos of {train} exists below {root / 'objects365/train'}")
        # The result depends on which photos exist, and where, as well as on the annotations.
        photos = sha256_of_json([image["file_name"] for image in document["images"]])
        inputs = {**file_inputs(root, train), "photos": photos}
        recipe = "objects365 names and existing photos, 1"
        made[output] = derive_json(output, inputs, recipe, lambda: correct_names(document), overwrite)
    return made, missing
