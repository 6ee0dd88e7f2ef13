"""Folders of another tool's layout: written whole or not at all, with the photos linked into them."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pomp.formats.checked import checked_size
from pomp.formats.labelled import LabelledPhoto
from prompt_core.documents.csv_tables import read_table
from prompt_core.errors import UserError
from prompt_core.photos.writable_names import FlatNames
from prompt_core.temporary_files import temporary_folder
from prompt_core.visible import visible_path

# Which photo a file of the layout is about, as these layouts name photos by a file of one folder.
PHOTO_TABLE = "photos.csv"
_OF_TOOLS = (".cache",)  # what tools write beside labels that they read
COLUMNS = ("file", "photo", "width", "height")


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``target`` at the end, unless something goes wrong.

    Raises:
        UserError: when a person has changed what an earlier run wrote there, or it cannot be written.
    """
    _refuse_changed(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target) as folder:
            inner = folder / target.name
            inner.mkdir()
            yield inner
            if target.is_dir() and not target.is_symlink():
                target.rename(folder / "before")
            inner.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {visible_path(target)}: {error.strerror or error}") from error


def _refuse_changed(target: Path) -> None:
    table = target / PHOTO_TABLE
    if not table.is_file():
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(
                f"{visible_path(target)} is there already, and not from an earlier run; move it, or choose another "
                "--output"
            )
        return
    written = table.stat().st_mtime  # the last file of a run
    for place, _, names in os.walk(target):
        inner = () if Path(place) == target else (".",)  # a folder is changed by what is deleted from it
        for name in (*inner, *(name for name in names if not name.endswith(_OF_TOOLS))):
            file = Path(place) / name
            if file.lstat().st_mtime > written + 1:
                raise UserError(
                    f"{visible_path(file)} was changed after it was written; move {visible_path(target)}, or choose "
                    "another --output, so that no correction is lost"
                )


class PhotoTable:
    """The table :data:`PHOTO_TABLE` of a folder, written as photos come, and the photos linked beside it.

    Args:
        folder: of the layout.
        images: the folder in it for photos.
    """

    def __init__(self, folder: Path, images: str) -> None:
        self._names = FlatNames()
        self._images = folder / images
        self._images.mkdir()
        self._file = open(folder / PHOTO_TABLE, "w", encoding="utf-8", newline="")  # noqa: SIM115 - closed below
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)

    def __enter__(self) -> PhotoTable:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, photo: LabelledPhoto) -> str:
        """The name of a photo's file in the folder for photos, and of files about it with another ending."""
        file = self._names.new(photo.name) + _ending(photo)
        self._rows.writerow([file, photo.name, photo.width, photo.height])
        if photo.path is not None:
            link_photo(photo.path, self._images / file)
        elif photo.pixels is not None:
            _write_photo(photo, self._images / file)
        return file


def _ending(photo: LabelledPhoto) -> str:
    ending = os.path.splitext(photo.name)[1].lower()  # noqa: PTH122 - a name, which may be no path
    written = photo.path is None and photo.pixels is not None  # by this package, which needs a format that it writes
    known = ending in (".jpg", ".jpeg", ".png") if written else ending[1:].isalnum() and ending.isascii()
    return ending if known else ".jpg"


def _write_photo(photo: LabelledPhoto, file: Path) -> None:
    """Give a frame or a member of an archive a file of its own; nothing where it cannot be read any more."""
    from PIL import Image

    assert photo.pixels is not None
    with contextlib.suppress(UserError):
        Image.fromarray(photo.pixels()).save(file, quality=95)


def link_photo(photo: Path, link: Path) -> None:
    """Make ``link`` stand for a photo; a copy where the system has no links."""
    try:
        link.symlink_to(photo.resolve())
    except OSError:
        shutil.copyfile(photo, link)


def known_photos(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Of a folder that :class:`PhotoTable` was written to: name, width and height of the photo of each file.

    Empty for one of another tool.

    Raises:
        UserError: when the table is damaged.
    """
    path = folder / PHOTO_TABLE
    if not path.is_file():
        return {}
    columns, rows = read_table(path)
    if not set(COLUMNS) <= set(columns):
        return {}
    known = {}
    for number, row in enumerate(rows, start=2):
        width, height = row["width"], row["height"]
        if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
            raise UserError(f"{visible_path(path)}: row {number} has no width and height in pixels")
        known[row["file"]] = row["photo"], *checked_size(int(width), int(height), f"{visible_path(path)}: row {number}")
    return known
