"""A small set of COCO photos for runs on a laptop: joined from three packs of photos, or taken out of COCO 2017."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import read_annotation_file
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json


def prepare_coco_small(root: Path, overwrite: bool = False, coco: Path | None = None) -> dict[Path, Outcome]:
    """Write ``coco_small/instances_{train,val,val_masks}.json``, a few hundred photos for runs on a laptop.

    The photos lie in ``coco128`` and ``coco128_val`` (boxes of all, masks of most in a file of their own) and in
    ``coco_more`` (boxes and masks of all); ``val_masks`` has only photos with masks. With ``coco``, the same photos are
    taken out of COCO 2017: see :func:`choose`.

    Args:
        coco: folder with ``annotations/instances_{train,val}2017.json``, ``train2017`` and ``val2017``.

    Raises:
        UserError: when a file of the three folders is absent or damaged; a photo or annotation of COCO is missing.
    """
    made = {}
    for split in ("train", "val"):
        inputs, build = _from_packs(root, split) if coco is None else _from_coco(root, split, coco)
        for masks_only in (False, True) if split == "val" else (False,):
            output = root / "coco_small" / f"instances_{split}{'_masks' if masks_only else ''}.json"
            recipe = "coco_small 1" if coco is None else "coco_small of COCO 2017, 1"
            made[output] = derive_json(output, inputs, recipe, partial(build, masks_only), overwrite)
    return made


Build = Callable[[bool], dict[str, Any]]


def _from_packs(root: Path, split: str) -> tuple[dict[str, str], Build]:
    folder, photos = {"train": "coco128", "val": "coco128_val"}[split], f"{split}2017"
    files = (
        root / folder / "annotations" / f"instances_{photos}_boxes.json",
        root / folder / "annotations" / f"instances_{photos}_masks.json",
        root / "coco_more" / "annotations" / f"instances_{photos}.json",
    )
    if not any(file.is_file() for file in files):
        raise UserError(
            f"{files[0]} does not exist; without the folders coco128, coco128_val and coco_more give --from-coco DIR, "
            f"a folder of COCO 2017 such as {root / 'coco'}"
        )
    return file_inputs(root, *files), partial(_join_packs, folder, photos, files)


def _join_packs(folder: str, photos: str, files: Sequence[Path], masks_only: bool) -> dict[str, Any]:
    boxes, masks, more = map(read_annotation_file, files)
    of_folder = masks if masks_only else with_masks(boxes, masks)
    return join({f"{folder}/{photos}": of_folder, f"coco_more/{photos}": more})


def _from_coco(root: Path, split: str, coco: Path) -> tuple[dict[str, str], Build]:
    """The missing photos are found before the large file is read."""
    file, folder = coco / "annotations" / f"instances_{split}2017.json", coco / f"{split}2017"
    chosen = chosen_photos(split)
    inputs = {**file_inputs(root, file), "photo ids": sha256_of_json([chosen.masks, chosen.boxes, chosen.more])}
    place = os.path.relpath(folder, root)
    if place.startswith(os.pardir):
        inputs["place"] = place  # outside the data root, where only lists that say so may name photos
    missing = [name for name in map(_photo_name, chosen.all) if not (folder / name).is_file()]
    if missing:
        first = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise UserError(f"{len(missing)} of {len(chosen.all)} photos are missing in {folder}: {first}")
    document = cache(lambda: read_annotation_file(file))

    def build(masks_only: bool) -> dict[str, Any]:
        whole = document()
        try:
            return join({place: choose(whole, chosen, masks_only)})
        except UserError as error:
            raise UserError(f"{file}: {error}") from error

    return inputs, build


@dataclass(frozen=True)
class ChosenPhotos:
    """COCO's ids of the photos of one split.

    Attributes:
        masks: of the first pack, with masks.
        boxes: of the first pack, with boxes only.
        more: of the second pack, with masks.
    """

    masks: tuple[int, ...]
    boxes: tuple[int, ...]
    more: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        """In the order of the set: each pack by its ids."""
        return (*sorted(self.masks + self.boxes), *self.more)


def chosen_photos(split: str) -> ChosenPhotos:
    """The photos of the packs, from ``assets/coco_small_photos.json``: ``split`` is train or val."""
    file = resources.files("pomp_det") / "data" / "assets" / "coco_small_photos.json"
    ids = json.loads(file.read_text(encoding="utf-8"))[f"{split}2017"]
    return ChosenPhotos(**{key: tuple(ids[key]) for key in ("masks", "boxes", "more")})


def choose(document: Mapping[str, Any], chosen: ChosenPhotos, masks_only: bool = False) -> dict[str, Any]:
    """The chosen photos of a COCO file, in the order of the packs.

    Photos of which the packs have boxes only lose their masks and their crowd regions, so that a run sees the same
    objects. What cannot be the same: the packs' masks of the first photos are those of COCO's panoptic annotation in
    the place of its polygons, and their second photos are scaled down to 400 pixels.

    Raises:
        UserError: when an id is not among the images.
    """
    images = {image["id"]: image for image in document["images"]}
    left_out = set(chosen.boxes) if masks_only else set()
    photos = [number for number in chosen.all if number not in left_out]
    if absent := [number for number in photos if number not in images]:
        raise UserError(f"image {absent[0]} is not in it, of {len(photos)} that are chosen; COCO 2017 is expected")
    of_photo: dict[int, list[dict[str, Any]]] = {number: [] for number in photos}
    for annotation in document["annotations"]:
        if annotation["image_id"] in of_photo:
            of_photo[annotation["image_id"]].append(annotation)
    boxes = [
        {key: value for key, value in annotation.items() if key != "segmentation"}
        for number in chosen.boxes
        for annotation in of_photo.get(number, [])
        if not annotation.get("iscrowd")
    ]
    masks = [annotation for number in (*chosen.masks, *chosen.more) for annotation in of_photo[number]]
    return {**document, "images": [images[number] for number in photos], "annotations": boxes + masks}


def _photo_name(number: int) -> str:
    return f"{number:012d}.jpg"


def with_masks(boxes: Mapping[str, Any], masks: Mapping[str, Any]) -> dict[str, Any]:
    """``boxes``, with the annotations of ``masks`` for the images in ``masks``."""
    masked = {image["id"] for image in masks["images"]}
    unmasked = [annotation for annotation in boxes["annotations"] if annotation["image_id"] not in masked]
    return {**boxes, "annotations": unmasked + masks["annotations"]}


def join(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Several files merged; the keys are the folders of their photos, and annotations are renumbered."""
    images = [
        {**image, "file_name": f"{folder}/{image['file_name']}"}
        for folder, document in documents.items()
        for image in document["images"]
    ]
    annotations = [annotation for document in documents.values() for annotation in document["annotations"]]
    numbered = [{**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)]
    first = next(iter(documents.values()))
    return {"images": images, "annotations": numbered, "categories": first["categories"]}
