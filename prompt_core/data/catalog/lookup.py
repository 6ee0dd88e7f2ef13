"""Data sets by their names and aliases, or by what a folder holds.

Serves :func:`prompt_core.data.sources.open_images`, templates and ``datasets/check.py``.
"""

from __future__ import annotations

from pathlib import Path

from prompt_core.data.catalog.benchmark_splits import Benchmark
from prompt_core.data.catalog.entries import ENTRIES
from prompt_core.data.catalog.entry import ClassificationEntry
from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import is_folder, list_folders
from prompt_core.data.readers.folder import WNID
from prompt_core.data.readers.imagenet_1k import imagenet_classes
from prompt_core.errors import UserError, nearest

NAMES = tuple(entry.name for entry in ENTRIES)
# What a prompt learned elsewhere is scored on: the ten data sets and four domains of POMP's tables, in their order.
CROSS_DATASET = (
    *("caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft", "sun397", "dtd"),
    *("eurosat", "ucf101"),
)
CROSS_DOMAIN = ("imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r")

_BY_NAME = {name: entry for entry in ENTRIES for name in (entry.name, *entry.aliases)}


def find_entry(name: str) -> ClassificationEntry | None:
    """The entry of a name or alias, or None."""
    return _BY_NAME.get(name.lower().replace("-", "_"))


def classification_entry(name: str) -> ClassificationEntry:
    """The entry of a name or alias.

    Raises:
        UserError: for an unknown name, with the nearest known ones.
    """
    entry = find_entry(name)
    if entry is None:
        raise UserError(f"data set {name!r} is unknown{nearest(name, _BY_NAME)}; known: {', '.join(NAMES)}")
    return entry


def photo_folders(split_file: str) -> tuple[str, ...]:
    """Photo folders of the data set of one of CoOp's split files; empty for any other file."""
    readers = (entry.reader for entry in ENTRIES if entry.split_file == split_file)
    return next((reader.photo_folders for reader in readers if isinstance(reader, Benchmark)), ())


def recognise(path: Path) -> ClassificationEntry | None:
    """The data set whose marks are in a folder, or None."""
    return next((entry for entry in ENTRIES if entry.recognises(path)), None)


def recognise_folders(path: Path) -> tuple[ClassificationEntry, Path] | None:
    """The data set whose photo folders are in ``path``, or that is the only one in it, and its folder; or None.

    Raises:
        UserError: when ``path`` is a root of data sets.
    """
    if (like := _imagenet_like(path)) is not None:
        return like, path
    below = {entry.name: (entry, name) for entry in ENTRIES for name in entry.folders if entry.recognises(path / name)}
    if not below:
        return None
    entry, name = next(iter(below.values()))
    if list_folders(path) == [name]:
        return entry, path / name
    raise UserError(f"{path} is a folder of data sets ({', '.join(below)}): name one, such as {entry.name}:{path}")


def _imagenet_like(path: Path) -> ClassificationEntry | None:
    """ImageNet-1K in ``images/{train,val}``, or ImageNet-Sketch, when all wnids are of that list."""
    sketch = classification_entry("imagenet_sketch")
    layouts = [(("images/train", "images/val"), "imagenet"), (("sketch",), sketch.name)]
    if path.absolute().name in sketch.folders:
        layouts.append((("images",), sketch.name))
    for places, name in layouts:
        folders = [path / place for place in places if is_folder(path / place)]
        wnids = {wnid for folder in folders for wnid in list_folders(folder)}
        if wnids and all(WNID.fullmatch(wnid) for wnid in wnids) and wnids <= set(imagenet_classes(path)[0]):
            return classification_entry(name)
    return None


def open_named(text: str, split: str, root: str | Path | None = None, save: bool = True) -> ImageSet:
    """Open ``NAME``, ``NAME:PATH`` or either with ``#DIVISION`` appended.

    Args:
        text: NAME as in the table; PATH is the set's folder, or a data root; DIVISION is published, official or
            generated.
        split: train, val or test.
        root: the data root of a bare NAME; see :func:`prompt_core.files.data_root`.
        save: save a generated division in the set's folder.

    Raises:
        UserError: for an unknown name, and when something is missing.
    """
    rest, marker, which = text.rpartition("#")
    if not marker or "/" in which:  # a folder's name may have a # in it
        rest, marker, which = text, "", ""
    name, colon, path = rest.partition(":")
    entry = classification_entry(name)
    if colon and not path:
        raise UserError(f"{text!r} names no path: expected {name}:PATH")
    folder = entry.folder(Path(path)) if colon else entry.place(root)
    return entry.open(folder, split, which if marker else None, save)
