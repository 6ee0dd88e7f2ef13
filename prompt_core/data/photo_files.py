"""Finding photos in folders and lists, with one order and one list of endings for every task.

Circular links, names that the file system refuses and folders without permission count as absent here, so that each of
them is reported in one line instead of a traceback.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from prompt_core.documents.bounds import TABLE_BYTES, read_text
from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible_path

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


def is_photo_name(name: str, endings: tuple[str, ...] = PHOTO_ENDINGS) -> bool:
    """Whether a file of this name counts as a photo: a known suffix in any case, and not hidden."""
    return not name.startswith(".") and name.lower().endswith(endings)


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file; False where the file system refuses to say (name too long, circular links)."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder; False where the file system refuses to say."""
    try:
        return path.is_dir()
    except OSError:
        return False


def list_folders(root: Path) -> list[str]:
    """Names of the visible folders in ``root`` (links to folders count, broken links do not), sorted.

    Raises:
        UserError: when ``root`` is not a folder that can be listed.
    """
    with _scan(root) as entries:
        visible = (entry for entry in entries if not entry.name.startswith("."))
        return sorted(entry.name for entry in visible if _leads_to(entry, folder=True))


def list_photos(folder: Path, recursive: bool = False, endings: tuple[str, ...] = PHOTO_ENDINGS) -> list[str]:
    """POSIX paths, relative to ``folder``, of its photos, sorted; without other or hidden files and broken links.

    With ``recursive`` real subfolders are searched too; linked ones are not, since links may be circular.

    Raises:
        UserError: when ``folder`` is not a folder that can be listed.
    """
    names: list[str] = []
    with _scan(folder) as entries:
        for entry in entries:
            if is_photo_name(entry.name, endings) and _leads_to(entry, folder=False):
                names.append(entry.name)
            elif recursive and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                inner = list_photos(folder / entry.name, True, endings)
                names.extend(f"{entry.name}/{name}" for name in inner)
    return sorted(names)


def find_photos(given: Sequence[str | Path], endings: tuple[str, ...] = PHOTO_ENDINGS) -> list[Path]:
    """The photos that a user names, and those in the folders named, in order of their names.

    Raises:
        UserError: for a path that does not exist, or a folder without photos.
    """
    photos: list[Path] = []
    for path in map(Path, given):
        if not path.exists():
            raise UserError(f"photo {path} does not exist")
        inside = sorted(path / name for name in list_photos(path, True, endings)) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"folder {path} holds no photo; endings {', '.join(endings)} are looked for")
        photos += inside
    return photos


def has_photos(folder: Path) -> bool:
    """Whether a photo lies directly in ``folder``."""
    with _scan(folder) as entries:
        return any(is_photo_name(entry.name) and _leads_to(entry, folder=False) for entry in entries)


def require_file(path: Path, what: str) -> Path:
    """``path`` when it is a file.

    Raises:
        UserError: when it is not; the message names the path and ``what`` it should hold.
    """
    if not is_file(path):
        raise UserError(f"expected {what} at {path}: no such file")
    return path


def require_folder(path: Path, what: str) -> Path:
    """``path`` when it is a folder.

    Raises:
        UserError: when it is not; the message names the path and ``what`` it should hold.
    """
    if not is_folder(path):
        raise UserError(f"expected {what} at {path}: no such folder")
    return path


def read_lines(path: Path, what: str) -> list[str]:
    """Non-empty lines of a UTF-8 text file, stripped.

    Raises:
        UserError: when the file is absent, too large or not text.
    """
    text = read_text(require_file(path, what), TABLE_BYTES)
    return [line.strip() for line in text.splitlines() if line.strip()]


def inside(path: str, where: str) -> str:
    """``path``, as a list of photos names it, if it stays inside the data set's folder.

    Args:
        where: the file and line that name it, for the message.

    Raises:
        UserError: when it is absolute, with a drive letter, or has ``..`` or a NUL in it.
    """
    parts = path.replace("\\", "/").split("/")
    if path.startswith(("/", "\\")) or ".." in parts or "\0" in path or _DRIVE.match(path):
        raise UserError(
            f"{where}: {shortened(path, 80)} leads out of the data set's folder; expected a path below it, without '..'"
        )
    return path


def require_photos(root: Path, keys: Sequence[str], listed_in: Path | str) -> None:
    """Check that photos that a file lists exist, and lie in ``root`` where they are links.

    A folder may be a link: data sets lie on other disks.

    Raises:
        UserError: when some do not; the message names the first one and counts them.
    """
    missing = [key for key in keys if not is_file(root / key)]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(keys)} photos listed in {listed_in} are missing, the first is "
            f"{visible_path(root / missing[0])}"
        )
    for key in keys:
        refuse_link_outside(root, root / key, listed_in)


def refuse_link_outside(root: Path, photo: Path, listed_in: Path | str) -> None:
    """Refuse a listed photo that is a link to a file in another place.

    Raises:
        UserError: when it is.
    """
    if not photo.is_symlink():
        return
    target = photo.resolve()
    if not any(target.is_relative_to(place.resolve()) for place in (root, photo.parent)):
        raise UserError(
            f"{listed_in} lists {visible_path(photo)}, a link to {visible_path(target)}, which leads out of the data "
            "set's folder; copy the photo"
        )


def _leads_to(entry: os.DirEntry[str], folder: bool) -> bool:
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError:  # a link to itself
        return False


def _scan(folder: Path) -> os._ScandirIterator[str]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise UserError(f"expected an image folder at {folder}: {error.strerror or error}") from error
