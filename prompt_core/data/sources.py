"""Open images by a data set's name, by kind and path, by path alone where the layout is known, or by a function."""

from __future__ import annotations

import glob
import importlib.util
from collections.abc import Callable
from pathlib import Path

from prompt_core.data.catalog.lookup import NAMES, find_entry, open_named, photo_folders, recognise, recognise_folders
from prompt_core.data.images import ImageSet
from prompt_core.data.joined import JOIN, join_images
from prompt_core.data.photo_files import is_file, is_folder, list_folders
from prompt_core.data.readers.class_tars import holds_class_tars
from prompt_core.data.readers.coco_crops import coco_crops
from prompt_core.data.readers.coop import coop_split, fgvc_aircraft, only_split_file
from prompt_core.data.readers.folder import WNID, open_folder
from prompt_core.data.readers.imagenet import tiny_imagenet
from prompt_core.data.readers.table import photo_list
from prompt_core.data.readers.webdataset import webdataset_shards
from prompt_core.data.readers.winter_21 import imagenet21k
from prompt_core.errors import UserError, nearest
from prompt_core.files import data_root
from prompt_core.plugins import is_outside, load_object


def open_images(
    kind_or_path: str | Path, split: str = "val", root: str | Path | None = None, save: bool = True
) -> ImageSet:
    """Open a labelled image source.

    Args:
        kind_or_path: the name of a data set of :mod:`prompt_core.data.catalog.lookup` (``caltech101``), alone, with its
            folder (``caltech101:PATH``) or with a division into splits (``caltech101#generated``); or a kind:
            ``folder:PATH``, ``tiny_imagenet:PATH``, ``coop:PATH#SPLIT_FILE`` (the part after ``#`` may be
            left out when there is one), ``aircraft:PATH``, ``imagenet21k:PATH``, ``webdataset:PATTERN``, ``csv:PATH``
            (the table, or a folder with ``labels.csv``), ``coco_crops:FOLDER#FILE`` (each box of a COCO file, as a
            crop); or a bare path whose layout is recognised (write ``./caltech101`` for a folder with the name of a
            data set); or ``package.module:function``, a user-defined function of the data root and the split that
            returns an :class:`ImageSet` (docs/add_a_data_set.md); or several of these with `` + `` between them, over
            one list of classes.
        split: train, val or test. A folder with subfolders of these names is entered; a source without splits (a
            flat folder of classes, a table, shards) ignores it.
        root: the data root, for a bare name; else the environment variable ``POMP_DATA``, else ``datasets``.
        save: save a generated division in the data set's folder.

    Raises:
        UserError: when the name, kind or layout is unknown, something that the layout needs is missing, or the file
            system refuses.
    """
    try:
        return _open(kind_or_path, split, root, save)
    except OSError as error:  # no permission, a name that is too long, circular links
        place = f" ({str(error.filename)[:200]})" if error.filename else ""
        raise UserError(f"cannot open {str(kind_or_path)[:200]}: {error.strerror or error}{place}") from error


def _open(kind_or_path: str | Path, split: str, root: str | Path | None, save: bool) -> ImageSet:
    text = str(kind_or_path)
    if JOIN in text and not is_file(Path(text)) and not is_folder(Path(text)):
        return join_images([_open(part.strip(), split, root, save) for part in text.split(JOIN)])
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS:
        if not rest:
            raise UserError(f"{text!r} names no path: expected {kind}:PATH")
        return KINDS[kind](rest, split)
    if isinstance(kind_or_path, str) and find_entry(kind.partition("#")[0]) is not None:
        return open_named(text, split, root, save)
    if isinstance(kind_or_path, str) and is_outside(text) and not Path(text).exists() and not _misspelt(kind):
        return _open_outside(text, split, data_root(root))
    return _recognise(text, save)(text, split)


def _misspelt(kind: str) -> bool:
    """Whether the word before a colon resembles a kind or a data set, and is not an importable module."""
    return bool(nearest(kind, (*KINDS, *NAMES))) and "." not in kind and importlib.util.find_spec(kind) is None


def _open_outside(text: str, split: str, root: Path) -> ImageSet:
    reader = load_object(text, "the data set")
    try:
        images = reader(root, split)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a function of the user's own may fail in any way
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{text} of the data root and {split!r} failed ({type(error).__name__}: {reason}); POMP_DEBUG=1 shows where"
        ) from error
    if not isinstance(images, ImageSet):
        raise UserError(f"{text} returned {type(images).__name__} for {split}; expected a prompt_core ImageSet")
    return images


def data_set_name(source: str) -> str:
    """The name of a source in tables and ``metrics.json``: the data set's name, or the end of the path."""
    kind, colon, rest = source.partition(":")
    entry = None if colon and kind in KINDS else find_entry(kind.partition("#")[0])
    return entry.name if entry is not None else Path(rest or source).name


def _recognise(text: str, save: bool) -> Callable[[str, str], ImageSet]:
    path = Path(text)
    if path.is_file():
        suffix = path.suffix.lower()
        if holds_class_tars(path):
            return KINDS["imagenet21k"]
        if suffix in SUFFIX_KINDS:
            return KINDS[SUFFIX_KINDS[suffix]]
    elif path.is_dir():
        if (path / "wnids.txt").exists() or (path / "tiny-imagenet-200").exists():
            return KINDS["tiny_imagenet"]
        if (path / "imagenet21k_train").exists() or (path / "imagenet21k_resized").exists():
            return KINDS["imagenet21k"]
        if any(path.glob("split_zhou_*.json")):
            return KINDS["coop"]
        if (entry := recognise(path)) is not None:
            return lambda text, split: entry.open(path, split, save=save)
        if (path / "labels.csv").exists():
            return KINDS["csv"]
        if (match := recognise_folders(path)) is not None:
            return lambda text, split: match[0].open(match[1], split, save=save)
        if archives := sorted(path.glob("*.tar")):
            of_classes = WNID.fullmatch(archives[0].stem) or holds_class_tars(archives[0])
            return KINDS["imagenet21k" if of_classes else "webdataset"]
        if list_folders(path):
            return KINDS["folder"]
        raise UserError(f"no known image layout in {path}: expected class folders, or one of {_kinds()}")
    elif "#" in text:
        return KINDS["coop"]
    elif glob.has_magic(text) or "{" in text:
        return KINDS["webdataset"]
    elif not path.exists():
        # a single word may be a misspelt kind or name, a path with folders cannot
        hint = nearest(text.partition(":")[0], (*KINDS, *NAMES)) if ":" in text or len(path.parts) == 1 else ""
        raise UserError(
            f"no image folder or file at {text}: expected a path, a data set's name, or one of {_kinds()}{hint}"
        )
    raise UserError(
        f"no known image layout in {path}: expected a folder, a .csv, .json or .tar file, or one of {_kinds()}"
    )


def _kinds() -> str:
    return ", ".join([*(f"{kind}:PATH" for kind in KINDS), "package.module:function"])


def _open_csv(text: str, split: str) -> ImageSet:
    path = Path(text)
    return photo_list(path) if path.is_dir() else photo_list(path.parent, path.name)


def _open_coop(text: str, split: str) -> ImageSet:
    if Path(text).is_file():
        path = Path(text)
        return coop_split(path.parent, path.name, split=split, known_folders=photo_folders(path.name))
    folder, marker, split_file = text.rpartition("#")
    if not marker:
        folder = text
    if not Path(folder).is_dir():
        raise UserError(f"expected the data set's folder at {folder}: no such folder")
    file = split_file if marker else only_split_file(Path(folder)).name
    return coop_split(folder, file, split=split, known_folders=photo_folders(Path(file).name))


def _open_webdataset(text: str, split: str) -> ImageSet:
    return webdataset_shards(Path(text) / "*.tar" if Path(text).is_dir() else text)


SUFFIX_KINDS = {".csv": "csv", ".json": "coop", ".tar": "webdataset"}
KINDS: dict[str, Callable[[str, str], ImageSet]] = {
    "folder": open_folder,
    "tiny_imagenet": tiny_imagenet,
    "coop": _open_coop,
    "aircraft": fgvc_aircraft,
    "imagenet21k": imagenet21k,
    "webdataset": _open_webdataset,
    "csv": _open_csv,
    "coco_crops": coco_crops,
}
