"""Photos in plain folders: one folder per class, or one table that lists them; and how folders are scanned."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError, nearest

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
WNID = re.compile(r"n\d{8}")


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as a photo: a known suffix in any case, and not hidden."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def sorted_folders(root: Path) -> list[str]:
    """Names of the visible folders in ``root`` (links to folders count, broken links do not), sorted.

    Raises:
        UserError: when ``root`` is not a folder that can be listed.
    """
    with _scan(root) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def sorted_images(folder: Path, recursive: bool = False) -> list[str]:
    """POSIX paths, relative to ``folder``, of its photos, sorted; other files, hidden ones and broken links are left.

    With ``recursive`` real subfolders are searched too; linked ones are not, since they may lead in circles.

    Raises:
        UserError: when ``folder`` is not a folder that can be listed.
    """
    found: list[str] = []
    with _scan(folder) as entries:
        for entry in entries:
            if is_image_name(entry.name) and entry.is_file():
                found.append(entry.name)
            elif recursive and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                inner = sorted_images(folder / entry.name, recursive=True)
                found.extend(f"{entry.name}/{name}" for name in inner)
    return sorted(found)


def _scan(folder: Path) -> os._ScandirIterator[str]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise UserError(f"expected an image folder at {folder}: {error.strerror or error}") from error


def require_file(path: Path, what: str) -> Path:
    """``path`` when it is a file.

    Raises:
        UserError: when it is not; the message names the path and ``what`` it should hold.
    """
    if not path.is_file():
        raise UserError(f"expected {what} at {path}: no such file")
    return path


def read_lines(path: Path, what: str) -> list[str]:
    """Non-empty lines of a UTF-8 text file, stripped.

    Raises:
        UserError: when the file is absent or is not text.
    """
    try:
        text = require_file(path, what).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({what}): {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def wordnet_names(wnids: Sequence[str]) -> dict[str, str]:
    """First WordNet lemma of each known wnid, from the lists that timm ships; unknown wnids are left out."""
    from timm.data import ImageNetInfo

    information = ImageNetInfo("imagenet-21k")
    names: dict[str, str] = {}
    for wnid in wnids:
        try:
            names[wnid] = information.label_name_to_description(wnid).split(",")[0].strip()
        except KeyError:
            continue
    return names


def folder_per_class(root: str | Path, classes: Sequence[str] | None = None) -> ImageSet:
    """One subfolder per class; photos may lie deeper inside it. The usual layout of ImageNet and its variants.

    Labels index the sorted folder list; folders that are all numbers (ImageNetV2) sort as numbers. Names: from a
    ``classnames.txt`` in ``root`` or up to two folders above (lines ``wnid name``; for numbered folders line i names
    folder i); else the WordNet lemma of folders named by wnid; else the folder's own name. A folder without photos
    stays a class.

    Args:
        root: the folder of class folders.
        classes: class folders in label order, when they are not those of ``root`` (such as a split that lacks one).

    Raises:
        UserError: when ``root`` is absent, has no class folders or no photos, or has a folder outside ``classes``.
    """
    root = Path(root)
    folders = sorted_folders(root)
    if not folders:
        raise UserError(f"no class folders in {root}: expected one folder of photos per class")
    ids = list(classes) if classes is not None else folders
    if extra := sorted(set(folders) - set(ids)):
        raise UserError(f"class folder {root / extra[0]} is not one of the {len(ids)} expected classes")
    if all(folder.isascii() and folder.isdigit() for folder in ids):
        ids = sorted(ids, key=int)
    keys: list[str] = []
    labels: list[int] = []
    present = set(folders)
    for label, folder in enumerate(ids):
        found = sorted_images(root / folder, recursive=True) if folder in present else []
        keys.extend(f"{folder}/{name}" for name in found)
        labels.extend([label] * len(found))
    if not keys:
        raise UserError(f"no photos in the {len(folders)} class folders of {root}: expected files such as .jpg or .png")
    names, origin = _folder_names(root, ids)
    return ImageSet(names, ids, np.asarray(labels), keys, f"folder:{root.name} (names: {origin})", root)


def _folder_names(root: Path, ids: list[str]) -> tuple[list[str], str]:
    numbered = all(folder.isascii() and folder.isdigit() for folder in ids)
    wnids = all(WNID.fullmatch(folder) for folder in ids)
    if not numbered and not wnids:
        return ids, "folders"
    for folder in (root, *root.absolute().parents[:2]):
        path = folder / "classnames.txt"
        if not path.is_file():
            continue
        lines = [line.split(maxsplit=1) for line in read_lines(path, "class names")]
        if any(len(parts) != 2 for parts in lines):
            raise UserError(f"{path}: expected lines of the form 'wnid class name'")
        if numbered:
            if int(ids[-1]) >= len(lines):
                raise UserError(f"{path} has {len(lines)} lines, none for class folder {root / ids[-1]}")
            return [lines[int(folder_name)][1] for folder_name in ids], path.name
        by_wnid = {parts[0]: parts[1] for parts in lines}
        if missing := [wnid for wnid in ids if wnid not in by_wnid]:
            raise UserError(f"{path} has no line for class folder {root / missing[0]}")
        return [by_wnid[wnid] for wnid in ids], path.name
    if wnids:
        known = wordnet_names(ids)
        return [known.get(wnid, wnid) for wnid in ids], "WordNet lemmas of timm"
    return ids, "folders"


def photo_list(
    root: str | Path,
    csv_file: str | Path = "labels.csv",
    file_column: str = "file",
    wnid_column: str | None = "wnid",
    name_column: str | None = "class_name",
) -> ImageSet:
    """A CSV table with one row per photo: its path, and a wnid or a class name (or both).

    A column that the table lacks counts as not given. Classes are the sorted wnids, or the sorted names without
    them. With both, a name such as "tench, Tinca tinca" is a list of WordNet synonyms and its first entry is taken;
    with wnids only the names are WordNet lemmas; names on their own are kept whole.

    Args:
        root: the folder that paths in the table are relative to.
        csv_file: the table, relative to ``root`` or absolute; UTF-8 with a header line.

    Raises:
        UserError: when the table, a needed column or a listed photo is missing, or a wnid has two names.
    """
    root = Path(root)
    path = require_file(root / csv_file, "a table of photos")
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} as a CSV table: {error}") from error
    if file_column not in columns:
        raise UserError(f"{path} has no column {file_column!r}, only {columns}{nearest(file_column, columns)}")
    wnid_column = wnid_column if wnid_column in columns else None
    name_column = name_column if name_column in columns else None
    id_column = wnid_column or name_column
    if id_column is None:
        raise UserError(f"{path} needs a column of wnids or class names, it has only {columns}")
    if not rows:
        raise UserError(f"{path} lists no photos: expected one row per photo")
    name_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if not row[file_column] or not row[id_column]:
            raise UserError(f"{path}, row {number}: {file_column!r} or {id_column!r} is empty")
        name = row[name_column] if name_column else row[id_column]
        if name_of.setdefault(row[id_column], name) != name:
            raise UserError(f"{path}, row {number}: {row[id_column]} is named {name!r} and {name_of[row[id_column]]!r}")
    ids = sorted(name_of)
    if name_column is None:
        known = wordnet_names(ids)
        names = [known.get(wnid, wnid) for wnid in ids]
    elif wnid_column is not None:
        names = [name_of[wnid].split(",")[0].strip() or wnid for wnid in ids]
    else:
        names = ids
    label_of = {class_id: label for label, class_id in enumerate(ids)}
    keys = [row[file_column] for row in rows]
    require_photos(root, keys, path)
    labels = [label_of[row[id_column]] for row in rows]
    return ImageSet(names, ids, np.asarray(labels), keys, f"csv:{root.name}/{path.name}", root)


def require_photos(root: Path, keys: Sequence[str], listed_in: Path) -> None:
    """Check that photos that a file lists exist.

    Raises:
        UserError: when some do not; the message names the first one and counts them.
    """
    missing = [key for key in keys if not (root / key).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(keys)} photos listed in {listed_in} are missing, the first is {root / missing[0]}"
        )
