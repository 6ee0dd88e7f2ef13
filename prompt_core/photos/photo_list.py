"""Which photos a user means, each once, and what each is called in the results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prompt_core.data.photo_files import find_photos, is_photo_name
from prompt_core.errors import UserError
from prompt_core.visible import visible_path

# Bytes of the photo's own name in the name of a picture; file systems allow 255 with number, ending and temporary name.
_STEM_BYTES = 120
_UNWRITABLE = '\\/:*?"<>|'  # in file names of one system or another


@dataclass(frozen=True)
class NamedPhoto:
    """A photo to predict.

    Attributes:
        number: its place in the list, from 1.
        path: the file.
        name: the same on every machine: as given where that is a path below the current folder, else beginning with
            the folder that was given, or the file's own name. Bytes that are no UTF-8 are written as ``\\xff``.
    """

    number: int
    path: Path
    name: str

    @property
    def picture(self) -> str:
        """The name of a PNG file about it, such as ``0001_photo.png``, whatever the photo is called."""
        shown = "".join(sign if sign.isprintable() and sign not in _UNWRITABLE else "_" for sign in self.path.stem)
        return f"{self.number:04d}_{shown.encode()[:_STEM_BYTES].decode(errors='ignore')}.png"


def list_photos_to_predict(given: Sequence[str | Path], output: Path) -> list[NamedPhoto]:
    """The photos that are named, those in the folders named, and those that patterns (``*``, ``**``, ``?``) match.

    A photo that is named twice counts once. What earlier runs wrote to ``output`` counts only where it is named itself.

    Raises:
        UserError: for a path that does not exist, or a folder or pattern without photos.
    """
    found: dict[str, tuple[Path, str]] = {}  # by absolute path
    for path in map(Path, given):
        matches = _matches(path)
        for start in [path] if matches is None else matches:
            chosen = matches is None and not start.is_dir()
            for photo in find_photos([start]):
                place = _absolute(photo)
                if chosen or not _is_below(place, output):
                    found.setdefault(place, (photo, _short_name(start, photo)))
    if not found:
        raise UserError(f"no photo is left besides what is in {visible_path(output)}; choose another --output")
    times = Counter(name for _, name in found.values())
    return [
        NamedPhoto(number, photo, _as_text(name if times[name] == 1 else place.lstrip(os.sep)))
        for number, (place, (photo, name)) in enumerate(found.items(), start=1)
    ]


def _matches(pattern: Path) -> list[Path] | None:
    """The photos and folders that a pattern matches, sorted; None for what is no pattern, or exists as it is."""
    if pattern.exists() or not glob.has_magic(str(pattern)):
        return None
    paths = [Path(path) for path in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207 - absolute ones too
    photos = [path for path in paths if path.is_file() and is_photo_name(path.name)]
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
