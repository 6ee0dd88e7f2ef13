"""Which photos a user means, each once, and what each is called in the results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from prompt_core.data.open_photo import HEIF_ENDINGS, read_photo
from prompt_core.data.photo_files import PHOTO_ENDINGS, find_photos, is_photo_name
from prompt_core.errors import UserError
from prompt_core.photos.archive_photos import ARCHIVE_ENDINGS, archive_photos
from prompt_core.photos.given_paths import given_paths
from prompt_core.photos.video_frames import VIDEO_ENDINGS, Every, video_frames
from prompt_core.photos.writable_names import writable
from prompt_core.visible import visible_path

# Data sets have no HEIC, so that only a user's own folders are searched for it.
_ENDINGS = (*PHOTO_ENDINGS, *HEIF_ENDINGS)


class Within(Protocol):
    """A photo in a file of many: a frame of a video, a member of an archive."""

    @property
    def label(self) -> str:
        """What is appended to the name of the file, such as ``#000120`` or ``/a.jpg``."""

    @property
    def stem(self) -> str:
        """What files about it are called."""

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 in RGB, upright; a :class:`UserError` where it cannot be read."""


@dataclass(frozen=True)
class NamedPhoto:
    """A photo to predict.

    Attributes:
        number: its place in the list, from 1.
        path: the file.
        name: the same on every machine: as given where that is a path below the current folder, else beginning with
            the folder that was given, or the file's own name. Bytes that are no UTF-8 are written as ``\\xff``.
        within: what of the file, where it holds many photos.
    """

    number: int
    path: Path
    name: str
    within: Within | None = field(default=None, compare=False)

    @property
    def picture(self) -> str:
        """The name of a PNG file about it, such as ``0001_photo.png``, whatever the photo is called."""
        stem = self.path.stem if self.within is None else self.within.stem
        return f"{self.number:04d}_{writable(stem)}.png"

    @property
    def place(self) -> Path:
        """Where it lies, for messages: the file, with the frame or the member."""
        return self.path if self.within is None else Path(f"{self.path}{self.within.label}")

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 in RGB, upright.

        Raises:
            UserError: when it cannot be read.
        """
        return read_photo(self.path) if self.within is None else self.within.read()


@dataclass(frozen=True)
class NamedFile:
    """A photo, a video or an archive, with its name, see :attr:`NamedPhoto.name`."""

    path: Path
    name: str


def list_photos_to_predict(given: Sequence[str | Path], output: Path, every: Every | None = None) -> list[NamedPhoto]:
    """The photos in what :func:`list_files_to_predict` lists, in its order.

    Args:
        every: which frames of videos; by default all.

    Raises:
        UserError: as there, and for a video or an archive that cannot be read.
    """
    return photos_in(list_files_to_predict(given, output), every)


def list_files_to_predict(given: Sequence[str | Path], output: Path) -> list[NamedFile]:
    """The photos that are named, those in the folders named, and those that patterns (``*``, ``**``, ``?``) match.

    ``@FILE`` stands for the paths in the lines of a file, ``-`` for those of standard input. Videos, which stand for
    their frames, and archives (``.tar``) of photos are not looked for in folders. A file that is named twice counts
    once. What earlier runs wrote to ``output`` counts only where it is named itself.

    Raises:
        UserError: for a path that does not exist, or a folder, pattern or list without photos.
    """
    found: dict[str, tuple[Path, str]] = {}  # by absolute path
    for path in given_paths(given):
        matches = _matches(path)
        for start in [path] if matches is None else matches:
            chosen = matches is None and not start.is_dir()
            for file in find_photos([start], _ENDINGS):
                place = _absolute(file)
                if chosen or not _is_below(place, output):
                    found.setdefault(place, (file, _short_name(start, file)))
    if not found:
        raise UserError(f"no photo is left besides what is in {visible_path(output)}; choose another --output")
    times = Counter(name for _, name in found.values())
    return [
        NamedFile(file, _as_text(name if times[name] == 1 else place.lstrip(os.sep)))
        for place, (file, name) in found.items()
    ]


def photos_in(files: Sequence[NamedFile], every: Every | None = None) -> list[NamedPhoto]:
    """The photos that files are or hold, numbered from 1.

    Raises:
        UserError: for a video or an archive that cannot be read.
    """
    photos: list[NamedPhoto] = []
    for file in files:
        for within in _contents(file.path, every or Every()):
            name = file.name if within is None else f"{file.name}{_as_text(within.label)}"
            photos.append(NamedPhoto(len(photos) + 1, file.path, name, within))
    return photos


def _contents(file: Path, every: Every) -> Iterator[Within | None]:
    ending = file.suffix.lower()
    if ending in VIDEO_ENDINGS:
        yield from video_frames(file, every)
    elif ending in ARCHIVE_ENDINGS:
        yield from archive_photos(file, _ENDINGS)
    else:
        yield None  # the photo itself


def _matches(pattern: Path) -> list[Path] | None:
    """The files and folders that a pattern matches, sorted; None for what is no pattern, or exists as it is."""
    if pattern.exists() or not glob.has_magic(str(pattern)):
        return None
    endings = (*_ENDINGS, *VIDEO_ENDINGS, *ARCHIVE_ENDINGS)
    paths = [Path(path) for path in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207 - absolute ones too
    photos = [path for path in paths if path.is_file() and is_photo_name(path.name, endings)]
    if not photos:
        raise UserError(f"no photo matches {visible_path(pattern)}")
    return photos


def _short_name(given: Path, photo: Path) -> str:
    if not photo.is_absolute() and ".." not in photo.parts:
        return photo.as_posix()
    if given == photo:
        return photo.name
    return (Path(Path(_absolute(given)).name) / photo.relative_to(given)).as_posix()


def _as_text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_below(place: str, folder: Path) -> bool:
    return Path(place).is_relative_to(_absolute(folder))


def _absolute(path: Path) -> str:
    """The path from the root, without ``..``; links stay, two links to one photo are two photos."""
    return os.path.normpath(path.absolute())
