"""The classification benchmarks of CoOp: ``split_zhou_*.json`` files, and the text lists of FGVC Aircraft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.layouts_folder import read_lines, require_file, require_photos, sorted_folders
from prompt_core.errors import UserError, nearest
from prompt_core.files import read_json

SPLITS = ("train", "val", "test")


def coop_split(
    root: str | Path, split_file: str | Path | None = None, images_folder: str | Path | None = None, split: str = "test"
) -> ImageSet:
    """A split of a CoOp benchmark (``{"train": [[path, label, class name], …], "val": …, "test": …}``).

    Class names come from the split file, over all three splits, so labels agree between them.

    Args:
        root: the data set's folder.
        split_file: relative to ``root``, or absolute; None takes the only ``split_zhou_*.json`` in ``root``.
        images_folder: what the paths in the file are relative to, itself relative to ``root``; None takes ``root`` or
            the first folder in it (or in its folders) that holds the split's first photo.
        split: train, val or test.

    Raises:
        UserError: when the file or a photo is missing, or the file is not of that form.
    """
    root = Path(root)
    path = require_file(root / split_file, "a CoOp split file") if split_file is not None else _only_split_file(root)
    if split not in SPLITS:
        raise UserError(f"{path.name} has no split {split!r}: expected train, val or test{nearest(split, SPLITS)}")
    document = read_json(path)
    if not isinstance(document, dict) or any(not isinstance(document.get(part), list) for part in SPLITS):
        raise UserError(f"{path} is no CoOp split file: expected an object with lists 'train', 'val' and 'test'")
    name_of: dict[int, str] = {}
    for part in SPLITS:
        for number, entry in enumerate(document[part]):
            _, label, name = _check_entry(entry, f"{path}, {part}[{number}]")
            if name_of.setdefault(label, name) != name:
                raise UserError(
                    f"{path}, {part}[{number}]: label {label} is {name!r} here and {name_of[label]!r} before"
                )
    names = [name_of[label] for label in sorted(name_of)]
    if sorted(name_of) != list(range(len(names))):
        absent = next(label for label in range(len(names)) if label not in name_of)
        raise UserError(f"{path}: label {absent} of 0..{max(name_of)} never occurs; labels must have no gaps")
    entries = document[split]
    if not entries:
        raise UserError(f"{path}: split {split!r} lists no photos")
    keys = [entry[0] for entry in entries]
    folder = root / images_folder if images_folder is not None else _find_images_folder(root, keys[0], path)
    require_photos(folder, keys, path)
    labels = [entry[1] for entry in entries]
    ids = names if len(set(names)) == len(names) else [f"{label} {name}" for label, name in enumerate(names)]
    return ImageSet(names, ids, np.asarray(labels), keys, f"coop:{path.name}:{split}", folder)


def fgvc_aircraft(root: str | Path, split: str) -> ImageSet:
    """FGVC Aircraft in its official text lists: ``variants.txt``, ``images_variant_{train,val,test}.txt``, ``images``.

    Raises:
        UserError: when a list or a photo is missing, or a line names an unknown variant.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"FGVC Aircraft has no split {split!r}: expected train, val or test{nearest(split, SPLITS)}")
    names = read_lines(root / "variants.txt", "the class names of FGVC Aircraft")
    label_of = {name: label for label, name in enumerate(names)}
    listing = root / f"images_variant_{split}.txt"
    keys: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(read_lines(listing, "the photo list of FGVC Aircraft"), start=1):
        photo, _, variant = line.partition(" ")
        if variant not in label_of:
            raise UserError(f"{listing}, line {number}: {variant!r} is not in variants.txt{nearest(variant, names)}")
        keys.append(f"images/{photo}.jpg")
        labels.append(label_of[variant])
    if not keys:
        raise UserError(f"{listing} lists no photos")
    require_photos(root, keys, listing)
    return ImageSet(names, list(names), np.asarray(labels), keys, f"fgvc_aircraft:{split}", root)


def _check_entry(entry: Any, where: str) -> tuple[str, int, str]:
    if isinstance(entry, list) and len(entry) == 3:
        path, label, name = entry
        if isinstance(path, str) and type(label) is int and label >= 0 and isinstance(name, str) and name:
            return path, label, name
    raise UserError(f"{where}: expected [path, label, class name], got {str(entry)[:80]}")


def _only_split_file(root: Path) -> Path:
    found = sorted(root.glob("split_zhou_*.json"))
    if len(found) != 1:
        seen = ", ".join(path.name for path in found) or "none"
        raise UserError(f"expected one split file at {root / 'split_zhou_*.json'}, found {seen}; name it with '#FILE'")
    return found[0]


def _find_images_folder(root: Path, first: str, split_file: Path) -> Path:
    candidates = [root]
    for depth in range(2):
        for folder in candidates:
            if (folder / first).is_file():
                return folder
        if depth == 0:
            candidates = [root / name for name in sorted_folders(root)]
    candidates = [folder / name for folder in candidates for name in sorted_folders(folder)]
    for folder in candidates:
        if (folder / first).is_file():
            return folder
    raise UserError(f"{split_file} lists {first}, which is neither in {root} nor in a folder of it")
