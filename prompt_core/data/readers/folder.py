"""Photos in plain folders, one for each class, with or without folders of splits above them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import has_photos, is_folder, list_folders, list_photos, read_lines
from prompt_core.data.photo_keys import KeyPacker, PhotoKeys
from prompt_core.data.splits import NoSuchSplit
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

WNID = re.compile(r"n\d{8}")
# "validation" is another word for val
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


def wordnet_names(wnids: Sequence[str]) -> dict[str, str]:
    """First WordNet lemma of each known wnid, as the packaged vocabularies have it; unknown wnids are left out."""
    known: dict[str, str] = {}
    for vocabulary in map(Vocabulary.load, ("imagenet1k", "imagenet21k")):  # 1k has one more, n04399382
        known.update(zip(map(str, vocabulary.ids or ()), vocabulary.names, strict=True))
    return {wnid: known[wnid] for wnid in wnids if wnid in known}


def photos_of_classes(root: Path, folders: Iterable[str], recursive: bool = False) -> tuple[PhotoKeys, np.ndarray]:
    """Keys and labels (n,) of the photos in one folder per class; a class without a folder has none.

    Args:
        root: what ``folders`` and the keys are relative to.
        recursive: also photos deeper inside the folders.
    """
    packer = KeyPacker()
    counts = [
        packer.add(folder, list_photos(root / folder, recursive) if is_folder(root / folder) else [])
        for folder in folders
    ]
    return packer.keys(), np.repeat(np.arange(len(counts)), counts)


def folder_per_class(root: str | Path, classes: Sequence[str] | None = None) -> ImageSet:
    """One subfolder per class; photos may lie deeper inside it. The usual layout of ImageNet and its variants.

    Labels index the sorted folder list; folders that are all numbers (ImageNetV2) sort as numbers. Names: from a
    ``classnames.txt`` in ``root`` or up to two folders above (lines ``wnid name``; for numbered folders line i names
    folder i); else the WordNet lemma of folders named by wnid; else the folder's own name. A folder without photos
    stays a class.

    Args:
        root: the folder of class folders.
        classes: class folders in label order, when they are not those of ``root`` (as for a split that lacks one).

    Raises:
        UserError: when ``root`` is absent, has no class folders or no photos, or has a folder outside ``classes``.
    """
    root = Path(root)
    folders = list_folders(root)
    if not folders:
        raise UserError(f"no class folders in {root}: expected one folder of photos per class")
    ids = list(classes) if classes is not None else folders
    if extra := sorted(set(folders) - set(ids)):
        raise UserError(f"class folder {root / extra[0]} is not one of the {len(ids)} expected classes")
    if all(folder.isascii() and folder.isdigit() for folder in ids):
        ids = sorted(ids, key=int)
    keys, labels = photos_of_classes(root, ids, recursive=True)
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


def open_folder(path: str | Path, split: str) -> ImageSet:
    """Class folders of :func:`folder_per_class`, with folders of splits above them or without.

    Split folders (``train``, ``val`` or ``validation``, ``test``) are entered, in ``path`` or in ``images`` below it,
    where there is nothing else; or where there are two of them, and no folder next to them contains photos, so that a
    set with a class of such a name is read as classes. Wnid folders are also found in ``images`` or ``sketch``.

    Raises:
        UserError: when the split is missing, or there are no class folders.
    """
    root = Path(path)
    if not is_folder(root):
        raise UserError(f"expected a folder of class folders at {root}: no such folder")
    for base in (root, root / "images"):
        splits = _split_folders(base) if is_folder(base) else {}
        if splits:
            if split not in splits:
                expected = f"expected the split {split!r} at {base / split}"
                raise NoSuchSplit(f"{expected}: no such folder, there is {list(splits.values())}")
            # a label must mean the same class in each split, even where one lacks a class
            classes = sorted({name for folder in splits.values() for name in list_folders(base / folder)})
            images = folder_per_class(base / splits[split], classes)
            return _sensible(images) if len(classes) == 1 else images
    for inner in ("images", "sketch"):
        wnids = list_folders(root / inner) if list_folders(root) == [inner] else []
        if wnids and all(WNID.fullmatch(name) for name in wnids):
            return folder_per_class(root / inner)
    return _sensible(folder_per_class(root))


def _split_folders(base: Path) -> dict[str, str]:
    """Split to folder name; empty where the folders of ``base`` are classes."""
    folders = list_folders(base)
    named = [name for name in SPLIT_FOLDERS if name in folders]
    splits = {SPLIT_FOLDERS[name]: name for name in named}
    if not splits:
        return {}
    if len(splits) < len(named):
        raise UserError(f"{base} has both val and validation: expected one of them; rename or move the other")
    others = [name for name in folders if name not in named]
    if not others:
        return splits
    if len(splits) < 2 or any(has_photos(base / name) for name in others):
        return {}
    # classes called train and val, with photos of other classes deeper: only folders without photos are ignored
    called_so = all(has_photos(base / name) for name in named)
    return {} if called_so and any(list_photos(base / name, recursive=True) for name in others) else splits


def _sensible(images: ImageSet) -> ImageSet:
    """``images``, unless all photos are in subfolders of one class folder, which suggests that those are the classes.

    Raises:
        UserError: when they are.
    """
    labels = {int(label) for label in images.labels}
    name = images.ids[labels.pop()]
    if labels or WNID.fullmatch(name) or any(key.count("/") < 2 for key in images.keys):
        return images
    raise UserError(
        f"{images.root} has photos in folders of {name} only, none of them in a class folder: expected one folder of "
        f"photos per class; give the folder that holds these (folder:{images.root / name}), or the data set's name"
    )
