"""The classification benchmarks of CoOp: ``split_zhou_*.json`` files, and the text lists of FGVC Aircraft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.layouts_folder import read_lines, require_file, require_photos, sorted_folders
from prompt_core.data.splits import SPLITS
from prompt_core.errors import UserError, nearest
from prompt_core.files import read_json

GENERATED = "generated split"


def coop_split(
    root: str | Path, split_file: str | Path | None = None, images_folder: str | Path | None = None, split: str = "test"
) -> ImageSet:
    """A split of a CoOp benchmark (``{"train": [[path, label, class name], …], "val": …, "test": …}``).

    Class names come from the split file, over all three splits, so labels agree between them. A file that was drawn
    here (it says so under ``generated``) is called a generated split in ``source``, whatever its name.

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
    source = f"coop:{path.name}:{split}"
    if (drawn := generated_note(document)) is not None:
        source += f" ({drawn})"
    first = document[split][0] if document[split] else None
    folder = root / images_folder if images_folder is not None else None
    if folder is None and first is not None:
        folder = _find_images_folder(root, _check_entry(first, f"{path}, {split}[0]")[0], path)
    return split_images({part: document[part] for part in SPLITS}, folder or root, path, split, source)


def split_images(parts: dict[str, list[Any]], folder: Path, listed_in: Path, split: str, source: str) -> ImageSet:
    """The photos of one split, with the classes of all.

    Args:
        parts: rows ``[path, label, class name]`` of each split.
        folder: what the paths are relative to.
        listed_in: the file or folder that the rows are from, for messages.

    Raises:
        UserError: when a row is not of that form, a label has two names or labels have gaps, or a photo is missing.
    """
    name_of: dict[int, str] = {}
    for part, rows in parts.items():
        for number, row in enumerate(rows):
            _, label, name = _check_entry(row, f"{listed_in}, {part}[{number}]")
            if name_of.setdefault(label, name) != name:
                raise UserError(
                    f"{listed_in}, {part}[{number}]: label {label} is {name!r} here and {name_of[label]!r} before"
                )
    names = [name_of[label] for label in sorted(name_of)]
    if sorted(name_of) != list(range(len(names))):
        absent = next(label for label in range(len(names)) if label not in name_of)
        raise UserError(f"{listed_in}: label {absent} of 0..{max(name_of)} never occurs; labels must have no gaps")
    if not parts[split]:
        raise UserError(f"{listed_in}: split {split!r} lists no photos")
    keys = [row[0] for row in parts[split]]
    require_photos(folder, keys, listed_in)
    labels = [row[1] for row in parts[split]]
    ids = names if len(set(names)) == len(names) else [f"{label} {name}" for label, name in enumerate(names)]
    return ImageSet(names, ids, np.asarray(labels), keys, source, folder)


def generated_note(document: dict[str, Any]) -> str | None:
    """What to call a split that was drawn here; None for any other split file."""
    about = document.get("generated")
    if about is None:
        return None
    rule, seed = (about.get("rule"), about.get("seed")) if isinstance(about, dict) else ("unknown rule", None)
    return f"{GENERATED}, seed {seed}, not the published one: {rule}"


def fgvc_aircraft(root: str | Path, split: str) -> ImageSet:
    """FGVC Aircraft in its official text lists: ``variants.txt``, ``images_variant_{train,val,test}.txt``, ``images``.

    The folder may also be the one above ``data`` or ``fgvc-aircraft-2013b``, as the archive is unpacked.

    Raises:
        UserError: when a list or a photo is missing, or a line names an unknown variant.
    """
    root = Path(root)
    for inner in (root / "data", root / "fgvc-aircraft-2013b" / "data"):
        if not (root / "variants.txt").exists() and (inner / "variants.txt").exists():
            root = inner
            break
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
    if isinstance(entry, list | tuple) and len(entry) == 3:
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
