"""Open images by kind and path, or by path alone where the layout can be recognised."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

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


def open_images(kind_or_path: str | Path, split: str = "val") -> ImageSet:
    """Open a labelled image source.

    Args:
        kind_or_path: ``folder:PATH``, ``tiny_imagenet:PATH``, ``coop:PATH#SPLIT_FILE`` (the part after ``#`` may be
            left out when there is one), ``aircraft:PATH``, ``imagenet21k:PATH``, ``webdataset:PATTERN``, ``csv:PATH``
            (the table, or a folder with ``labels.csv``), or a bare path whose layout is recognised.
        split: train, val or test. A folder with subfolders of these names is entered; a source without splits (a
            flat folder of classes, a table, shards) ignores it.

    Raises:
        UserError: when the kind or layout is unknown, or something that the layout needs is missing.
    """
    text = str(kind_or_path)
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS:
        if not rest:
            raise UserError(f"{text!r} names no path: expected {kind}:PATH")
        return KINDS[kind](rest, split)
    kind = _recognise(text)
    return KINDS[kind](text, split)


def _recognise(text: str) -> str:
    path = Path(text)
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return "csv"
        if path.suffix.lower() == ".json":
            return "coop"
        if path.suffix.lower() == ".tar":
            return "webdataset"
    elif path.is_dir():
        if (path / "wnids.txt").exists() or (path / "tiny-imagenet-200").exists():
            return "tiny_imagenet"
        if (path / "imagenet21k_train").exists() or (path / "imagenet21k_resized").exists():
            return "imagenet21k"
        if any(path.glob("split_zhou_*.json")):
            return "coop"
        if (path / "variants.txt").exists():
            return "aircraft"
        if (path / "labels.csv").exists():
            return "csv"
        if any(path.glob("*.tar")):
            return "webdataset"
        if sorted_folders(path):
            return "folder"
        raise UserError(f"no known image layout in {path}: expected class folders, or one of {_kinds()}")
    elif "#" in text:
        return "coop"
    elif glob.has_magic(text) or "{" in text:
        return "webdataset"
    elif not path.exists():
        hint = nearest(text.partition(":")[0], KINDS) if ":" in text else ""
        raise UserError(f"no image folder or file at {text}: expected a path or one of {_kinds()}{hint}")
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


KINDS: dict[str, Callable[[str, str], ImageSet]] = {
    "folder": _open_folder,
    "tiny_imagenet": tiny_imagenet,
    "coop": _open_coop,
    "aircraft": fgvc_aircraft,
    "imagenet21k": imagenet21k,
    "webdataset": _open_webdataset,
    "csv": _open_csv,
}
