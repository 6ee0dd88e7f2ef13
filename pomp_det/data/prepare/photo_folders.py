"""Photos in a folder for each class as image labels: a user's own in the place of retrieved or ImageNet's ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pomp_det.data.prepare.photo_lists import with_sizes
from pomp_det.data.usable_boxes import Problems
from prompt_core.data.photo_files import list_folders, list_photos
from prompt_core.errors import UserError, nearest
from prompt_core.visible import visible_path
from prompt_core.vocabulary import plain_name


def photo_folder_labels(
    photos: Path, categories: Sequence[Mapping[str, Any]], workers: int = 8
) -> tuple[dict[str, Any], Problems]:
    """A document for ``DATASETS.FILES`` with the kind ``image_labels``.

    Args:
        photos: a folder of ``CLASS/PHOTO``, also in deeper folders; classes may be named with spaces or underscores.
        categories: with ``id`` and ``name``, of the detector's classes; those without a folder have no photos.

    Returns:
        the document, and the photos that are left out because they cannot be read.

    Raises:
        UserError: a folder of no class, with the nearest, or no photo that can be read.
    """
    known = {plain_name(category["name"]) for category in categories}
    folders: dict[str, str] = {}
    for folder in list_folders(photos):
        name = plain_name(folder)
        if name not in known or name in folders:
            reason = f"none of the {len(known)} classes{nearest(name, sorted(known))}"
            if name in folders:
                reason = f"the same class as {folders[name]!r}"
            raise UserError(f"{visible_path(photos / folder)} is of {reason}; rename or remove it")
        folders[name] = folder
    listed: list[dict[str, Any]] = []
    for category in categories:
        place = folders.get(plain_name(category["name"]))
        for photo in list_photos(photos / place, recursive=True) if place is not None else ():
            listed.append({"file_name": f"{place}/{photo}", "pos_category_ids": [category["id"]]})
    problems = Problems()
    images = with_sizes(photos, listed, problems, workers)
    if not images:
        raise UserError(f"{visible_path(photos)} has no photos in folders of classes that can be read")
    return {"images": images, "annotations": [], "categories": list(categories)}, problems
