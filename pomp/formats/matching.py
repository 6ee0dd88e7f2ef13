"""Which file each photo of another tool is: tools add folders and numbers to names, or leave them out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from pomp.formats.labelled import LabelledPhoto
from prompt_core.data.photo_files import inside, is_file, list_photos
from prompt_core.errors import UserError

# What Label Studio puts before the name of a file that was uploaded, also in its COCO and YOLO exports.
UPLOADED = re.compile(r"[0-9a-f]{8}-")
# Where layouts keep photos.
_BESIDE = ("", "images", "JPEGImages", "data")


def matched(photos: Sequence[LabelledPhoto], place: Path, folder: Path | None) -> Iterator[LabelledPhoto]:
    """The photos, with ``path`` where the file was found.

    A name leads nowhere else: of one with ``..`` or from the root only the last part is looked for. A photo that was
    found by a part of its name is called by its place in ``folder``.

    Args:
        place: the file or folder that names them.
        folder: where the photos are; None for beside ``place`` and in the current folder.
    """
    if folder is None:
        start = place if place.is_dir() else place.parent
        places = [*(start / name for name in _BESIDE), Path()]
        for photo in photos:
            name = _within(photo.name)
            found = next((path for where in places if is_file(path := where / name)), None)
            yield photo if photo.path is not None or found is None else replace(photo, path=found)
        return
    listed = list_photos(folder, recursive=True)
    by_name = {name: name for name in listed} | {f"{folder.resolve().name}/{name}": name for name in listed}
    by_last: dict[str, list[str]] = defaultdict(list)
    for name in listed:
        by_last[PurePosixPath(name).name].append(name)
    for photo in photos:
        name = _within(photo.name)
        last = PurePosixPath(name).name
        if name in by_name:
            yield replace(photo, name=name, path=folder / by_name[name])
            continue
        alike = by_last.get(last) or by_last.get(UPLOADED.sub("", last, count=1)) or []
        yield replace(photo, name=alike[0], path=folder / alike[0]) if len(alike) == 1 else photo


def in_local_files(address: str) -> str:
    """The photo of an address of Label Studio's local files, ``/data/local-files/?d=NAME``; empty for another."""
    _, mark, name = address.partition("?d=")
    return unquote(name) if mark else ""


def _within(name: str) -> str:
    name = in_local_files(name) or name
    try:
        return inside(name, "")
    except UserError:
        return name.replace("\\", "/").rpartition("/")[2].replace("\0", "")
