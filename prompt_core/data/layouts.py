"""Open images by the data set's name, by kind and path, or by path alone where the layout can be recognised."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

from prompt_core.data.catalog import NAMES, find_entry, open_named, recognise
from prompt_core.data.images import ImageSet
from prompt_core.data.layouts_coop import coop_split, fgvc_aircraft
from prompt_core.data.layouts_folder import folder_per_class, photo_list, sorted_folders
from prompt_core.data.layouts_imagenet import imagenet21k, tiny_imagenet
from prompt_core.data.layouts_webdataset import webdataset_shards
from prompt_core.errors import UserError, nearest

__all__ = [
    "KINDS",
    "coop_split",
    "fgvc_aircraft",
    "folder_per_class",
    "imagenet21k",
    "open_images",
    "photo_list",
    "tiny_imagenet",
    "webdataset_shards",
]


def open_images(kind_or_path: str | Path, split: str = "val", root: str | Path | None = None) -> ImageSet:
    """Open a labelled image source.

    Args:
        kind_or_path: the name of a data set of :mod:`prompt_core.data.catalog` (``caltech101``), alone, with its folder
            (``caltech101:PATH``) or with a division into splits (``caltech101#generated``); or a kind:
            ``folder:PATH``, ``tiny_imagenet:PATH``, ``coop:PATH#SPLIT_FILE`` (the part after ``#`` may be
            left out when there is one), ``aircraft:PATH``, ``imagenet21k:PATH``, ``webdataset:PATTERN``, ``csv:PATH``
            (the table, or a folder with ``labels.csv``); or a bare path whose layout is recognised. A folder that is
            called as a data set is written ``./caltech101``.
        split: train, val or test. A folder with subfolders of these names is entered; a source without splits (a
            flat folder of classes, a table, shards) ignores it.
        root: the data root, for a bare name; else the environment variable ``POMP_DATA``, else ``datasets``.

    Raises:
        UserError: when the name, kind or layout is unknown, or something that the layout needs is missing.
    """
    text = str(kind_or_path)
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS:
        if not rest:
            raise UserError(f"{text!r} names no path: expected {kind}:PATH")
        return KINDS[kind](rest, split)
    if isinstance(kind_or_path, str) and find_entry(kind.partition("#")[0]) is not None:
        return open_named(text, split, root)
    return _recognise(text)(text, split)


def data_set_name(source: str) -> str:
    """What tables and ``metrics.json`` call a source of :func:`open_images`: the data set's name, or the path's end."""
    kind, colon, rest = source.partition(":")
    entry = None if colon and kind in KINDS else find_entry(kind.partition("#")[0])
    return entry.name if entry is not None else Path(rest or source).name


def _recognise(text: str) -> Callable[[str, str], ImageSet]:
    path = Path(text)
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix in SUFFIX_KINDS:
            return KINDS[SUFFIX_KINDS[suffix]]
    elif path.is_dir():
        if (path / "wnids.txt").exists() or (path / "tiny-imagenet-200").exists():
            return KINDS["tiny_imagenet"]
        if (path / "imagenet21k_train").exists() or (path / "imagenet21k_resized").exists():
            return KINDS["imagenet21k"]
        if any(path.glob("split_zhou_*.json")):
            return KINDS["coop"]
        if (path / "variants.txt").exists():
            return KINDS["aircraft"]
        if (entry := recognise(path)) is not None:
            return lambda text, split: entry.open(Path(text), split)
        if (path / "labels.csv").exists():
            return KINDS["csv"]
        if any(path.glob("*.tar")):
            return KINDS["webdataset"]
        if sorted_folders(path):
            return KINDS["folder"]
        raise UserError(f"no known image layout in {path}: expected class folders, or one of {_kinds()}")
    elif "#" in text:
        return KINDS["coop"]
    elif glob.has_magic(text) or "{" in text:
        return KINDS["webdataset"]
    elif not path.exists():
        # a word may be meant as a kind or a name, a path with folders in it may not
        hint = nearest(text.partition(":")[0], (*KINDS, *NAMES)) if ":" in text or len(path.parts) == 1 else ""
        raise UserError(
            f"no image folder or file at {text}: expected a path, a data set's name, or one of {_kinds()}{hint}"
        )
    raise UserError(
        f"no known image layout in {path}: expected a folder, a .csv, .json or .tar file, or one of {_kinds()}"
    )


def _kinds() -> str:
    return ", ".join(f"{kind}:PATH" for kind in KINDS)


def _open_folder(text: str, split: str) -> ImageSet:
    root = Path(text)
    if not root.is_dir():
        raise UserError(f"expected a folder of class folders at {root}: no such folder")
    for base in (root, root / "images"):
        splits = [name for name in ("train", "val", "test") if (base / name).is_dir()]
        if splits and set(sorted_folders(base)) <= {"train", "val", "test"}:
            if split not in splits:
                raise UserError(f"expected the split {split!r} at {base / split}: no such folder, there is {splits}")
            # labels must mean the same class in each split, even where one lacks a class
            classes = sorted({name for part in splits for name in sorted_folders(base / part)})
            return folder_per_class(base / split, classes)
    return folder_per_class(root)


def _open_csv(text: str, split: str) -> ImageSet:
    path = Path(text)
    return photo_list(path) if path.is_dir() else photo_list(path.parent, path.name)


def _open_coop(text: str, split: str) -> ImageSet:
    if Path(text).is_file():
        path = Path(text)
        return coop_split(path.parent, path.name, split=split)
    folder, marker, split_file = text.rpartition("#")
    if not marker:
        folder = text
    if not Path(folder).is_dir():
        raise UserError(f"expected the data set's folder at {folder}: no such folder")
    return coop_split(folder, split_file if marker else None, split=split)


def _open_webdataset(text: str, split: str) -> ImageSet:
    return webdataset_shards(Path(text) / "*.tar" if Path(text).is_dir() else text)


SUFFIX_KINDS = {".csv": "csv", ".json": "coop", ".tar": "webdataset"}
KINDS: dict[str, Callable[[str, str], ImageSet]] = {
    "folder": _open_folder,
    "tiny_imagenet": tiny_imagenet,
    "coop": _open_coop,
    "aircraft": fgvc_aircraft,
    "imagenet21k": imagenet21k,
    "webdataset": _open_webdataset,
    "csv": _open_csv,
}
