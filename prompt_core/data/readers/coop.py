"""The classification benchmarks of CoOp: ``split_zhou_*.json`` files, and the text lists of FGVC Aircraft."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import inside, is_file, list_folders, read_lines, require_file, require_photos
from prompt_core.data.splits import SPLITS, check_split
from prompt_core.errors import UserError, nearest
from prompt_core.files import read_json

GENERATED = "generated split"
# how many photos of a split are looked for in the known folders of a data set
PROBED = 20


def coop_split(
    root: str | Path,
    split_file: str | Path | None = None,
    images_folder: str | Path | None = None,
    split: str = "test",
    known_folders: Sequence[str] = (),
) -> ImageSet:
    """A split of a CoOp benchmark (``{"train": [[path, label, class name], …], "val": …, "test": …}``).

    Class names come from the split file, over all three splits, so labels agree between them. A file that was drawn
    here (it says so under ``generated``) is called a generated split in ``source``, whatever its name.

    Args:
        root: the data set's folder.
        split_file: relative to ``root``, or absolute; None takes the only ``split_zhou_*.json`` in ``root``.
        images_folder: what the paths in the file are relative to, itself relative to ``root``; None takes the first of
            ``known_folders`` that holds one of the split's first photos, else ``root`` or the first folder below it
            (up to two levels) that holds the very first.
        split: train, val or test.
        known_folders: where this data set has its photos, relative to ``root``; other folders may hold copies.

    Raises:
        UserError: when the file or a photo is missing, a path leads out of ``root``, or the file is not of that form.
    """
    root = Path(root)
    path = require_file(root / split_file, "a CoOp split file") if split_file is not None else only_split_file(root)
    check_split(split, SPLITS, path.name)
    document = read_json(path)
    if not isinstance(document, dict) or any(not isinstance(document.get(part), list) for part in SPLITS):
        raise UserError(f"{path} is not a CoOp split file: expected an object with lists 'train', 'val' and 'test'")
    source = f"coop:{path.name}:{split}"
    if (drawn := generated_note(document)) is not None:
        source += f" ({drawn})"
    folder = root / images_folder if images_folder is not None else None
    if folder is None and document[split]:
        first = [_check_entry(row, f"{path}, {split}[{at}]")[0] for at, row in enumerate(document[split][:PROBED])]
        folder = _find_images_folder(root, first, path, known_folders)
    return split_images({part: document[part] for part in SPLITS}, folder or root, path, split, source)


def split_images(parts: dict[str, list[Any]], folder: Path, listed_in: Path | str, split: str, source: str) -> ImageSet:
    """The photos of one split, with the classes of all.

    Args:
        parts: rows ``[path, label, class name]`` of each split.
        folder: what the paths are relative to.
        listed_in: where the rows come from, for messages.

    Raises:
        UserError: when a row is not of that form or leads out of ``folder``, a label has two names or labels have
            gaps, or a photo is missing.
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
    """A note on a split that was drawn here; None for any other split file."""
    about = document.get("generated")
    if about is None:
        return None
    rule, seed = (about.get("rule"), about.get("seed")) if isinstance(about, dict) else ("unknown rule", None)
    return f"{GENERATED}, seed {seed}, not the published one: {rule}"


def fgvc_aircraft(root: str | Path, split: str) -> ImageSet:
    """FGVC Aircraft in its official text lists: ``variants.txt``, ``images_variant_{train,val,test}.txt``, ``images``.

    The folder may also be the parent of ``data`` or ``fgvc-aircraft-2013b``, as the archive unpacks.

    Raises:
        UserError: when a list or a photo is missing, or a line names an unknown variant.
    """
    root = Path(root)
    for inner in (root / "data", root / "fgvc-aircraft-2013b" / "data"):
        if not (root / "variants.txt").exists() and (inner / "variants.txt").exists():
            root = inner
            break
    check_split(split, SPLITS, "FGVC Aircraft")
    names = read_lines(root / "variants.txt", "the class names of FGVC Aircraft")
    label_of = {name: label for label, name in enumerate(names)}
    listing = root / f"images_variant_{split}.txt"
    keys: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(read_lines(listing, "the photo list of FGVC Aircraft"), start=1):
        photo, _, variant = line.partition(" ")
        inside(photo, f"{listing}, line {number}")
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
            return inside(path, where), label, name
    raise UserError(f"{where}: expected [path, label, class name], got {str(entry)[:80]}")


def only_split_file(root: Path) -> Path:
    """CoOp's split file in a folder.

    Raises:
        UserError: when there is none, or more than one.
    """
    files = sorted(root.glob("split_zhou_*.json"))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise UserError(f"expected one split file at {root / 'split_zhou_*.json'}, found {names}; name it with '#FILE'")
    return files[0]


def _find_images_folder(root: Path, photos: list[str], split_file: Path, known: Sequence[str]) -> Path:
    for name in known:
        # of several photos, since a copy in another folder must not win because one photo is gone here
        if any(is_file(root / name / photo) for photo in photos):
            return root / name
    first = photos[0]
    for folder in _to_depth_two(root):
        if is_file(folder / first):
            return folder
    raise UserError(f"{split_file} lists {first}, which is neither in {root} nor in a folder of it")


def _to_depth_two(root: Path) -> Iterator[Path]:
    yield root
    inner = [root / name for name in list_folders(root)]
    yield from inner
    for folder in inner:
        yield from (folder / name for name in list_folders(folder))
