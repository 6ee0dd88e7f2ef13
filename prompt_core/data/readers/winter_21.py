"""ImageNet-21K of winter 2021, as it is distributed: folders of the processed release, archives, or prepared shards.

Whichever way the photos come, a class is its wnid, classes are sorted by it, and a photo's key is
``imagenet21k_train/n01440764/n01440764_10026.JPEG``. So the same photos give the same few shots, features and training.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import is_folder, list_folders, require_file
from prompt_core.data.photo_index import PhotoIndex
from prompt_core.data.photo_keys import PhotoKeys
from prompt_core.data.readers.class_tars import archive_files, class_tar_index, has_archives, processed_wnids
from prompt_core.data.readers.folder import WNID, photos_of_classes, wordnet_names
from prompt_core.data.readers.prepared_shards import holds_prepared_shards, prepared_shards
from prompt_core.data.splits import check_split
from prompt_core.errors import UserError
from prompt_core.visible import say

TREE = "imagenet21k_miil_tree.pth"
TRAIN, VAL, SMALL = "imagenet21k_train", "imagenet21k_val", "imagenet21k_small_classes"
# Ridnik et al. 2021 (processing_script.sh) move the first 50 photos of each class, by name, to val.
VAL_PHOTOS = 50


def imagenet21k(root: str | Path, split: str) -> ImageSet:
    """ImageNet-21K as processed by Ridnik et al. 2021 (winter-21): ``imagenet21k_train`` and ``imagenet21k_val``.

    Folders: labels index the sorted wnid folders of ``imagenet21k_train`` in both splits, so the number of classes is
    that of the data. Val folders may be missing; ones that train lacks are left out and counted in ``source``.

    Archives (``winter21_whole.tar``, class tars, shards), read in place through an index: classes are those of the
    processed release that have photos; val are the first 50 photos of each by name, as the published script divides.

    Names come from ``imagenet21k_miil_tree.pth`` (key ``class_description``); without that file they are WordNet
    lemmas.
    The small classes, which have neither training nor test, are ``ROOT#small``.

    Args:
        root: the folder that holds ``imagenet21k_train``, prepared shards or archives, or the parent of
            ``imagenet21k_resized``; or an archive, or a pattern of shards.
        split: train, val, or test, which is val; any for the small classes.

    Raises:
        UserError: when a folder is missing or empty, an archive or the tree file is damaged, or no photo is there.
    """
    check_split(split, ("train", "val", "test"), "ImageNet-21K")
    text = str(root).removesuffix("#small")
    part = SMALL if text != str(root) else TRAIN if split == "train" else VAL
    folder = Path(text)
    if not is_folder(folder / TRAIN) and is_folder(folder / "imagenet21k_resized"):
        folder = folder / "imagenet21k_resized"
    if not is_folder(folder / part) and holds_prepared_shards(folder):
        return prepared_shards(folder, part)
    if not is_folder(folder / TRAIN) and not is_folder(folder / part) and has_archives(text):
        return _in_archives(text, part)
    return _in_folders(folder, part)


def _in_folders(root: Path, part: str) -> ImageSet:
    train = root / (SMALL if part == SMALL else TRAIN)
    wnids = [name for name in list_folders(train) if WNID.fullmatch(name)]
    if not wnids:
        raise UserError(f"no class folders in {train}: expected folders such as n01440764")
    present = {name for name in list_folders(root / part) if WNID.fullmatch(name)}
    keys, labels = photos_of_classes(root, (f"{part}/{wnid}" for wnid in wnids))
    if not keys:
        raise UserError(f"no photos in {root / part}: expected WNID/*.JPEG for the {len(wnids)} folders of {train}")
    names, notes = class_names(root / TREE, wnids)
    if left_out := len(present - set(wnids)):
        notes.append(f"{left_out} val folders not in train left out")
    return ImageSet(names, wnids, labels, keys, _source(part, notes), root)


def _source(part: str, notes: Sequence[str]) -> str:
    return f"imagenet21k:{part.removeprefix('imagenet21k_')} ({'; '.join(notes)})"


def _in_archives(text: str, part: str) -> ImageSet:
    files = archive_files(text)
    index = class_tar_index(text, files)
    processed = frozenset(processed_wnids())
    wnids = [wnid for wnid in index.classes if (wnid in processed) == (part != SMALL)]
    if not wnids:
        raise UserError(f"{text} holds none of the classes that are asked for, but {index.classes[0]}, …")
    root = Path(os.path.commonpath([path.absolute().parent for path in files]))
    names, notes = class_names(root / TREE, wnids)
    if index.fault_count:
        notes.append(f"{index.fault_count:,} faults in the archives")
        _warn(
            f"warning: {index.fault_count:,} faults in {text}, the first: {index.faults[0]}; datasets/check.py "
            f"imagenet21k:{text} lists them"
        )
    if part != SMALL and len(index.classes) > len(wnids):
        notes.append(f"{len(index.classes) - len(wnids):,} classes beyond the processed release left out")
    rows, labels = _photos_of(index, wnids, part)
    if not len(rows):
        raise UserError(f"{text} has no photos for {part}: at most {VAL_PHOTOS} of each class, and these are of val")
    class_of = np.repeat(np.arange(len(index.classes), dtype=np.int32), index.counts)
    keys = PhotoKeys(index.text, index.ends, [f"{part}/{wnid}" for wnid in index.classes], class_of, rows)
    shards = tuple(path.absolute().relative_to(root).as_posix() for path in files)
    return ImageSet(names, wnids, labels, keys, _source(part, notes), root, shards, index.places[rows])


@functools.cache
def _warn(text: str) -> None:
    """Say it once, however many splits are opened."""
    say(text, error=True)


def _photos_of(index: PhotoIndex, wnids: Sequence[str], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n,) of an index that a part has, and their labels (n,), which index ``wnids``."""
    number_of = {wnid: number for number, wnid in enumerate(index.classes)}
    starts, rows, counts = index.starts, [], []
    for wnid in wnids:
        start, end = int(starts[number_of[wnid]]), int(starts[number_of[wnid] + 1])
        middle = min(end, start + VAL_PHOTOS)
        first, last = {TRAIN: (middle, end), VAL: (start, middle), SMALL: (start, end)}[part]
        rows.append(np.arange(first, last))
        counts.append(last - first)
    return np.concatenate(rows), np.repeat(np.arange(len(wnids)), counts)


def class_names(path: Path, wnids: list[str]) -> tuple[list[str], list[str]]:
    """Class names in label order and notes on where they come from."""
    notes: list[str] = []
    described: dict[str, str] = {}
    if path.exists():
        described = _read_tree(require_file(path, "the class tree of ImageNet-21K"))
        notes.append(f"names: {path.name}")
    missing = [wnid for wnid in wnids if wnid not in described]
    lemmas = wordnet_names(missing) if missing else {}
    if not described:
        notes.append(f"names: WordNet lemmas of timm, no {path.name}")
    elif lemmas:
        notes.append(f"{len(lemmas)} names not in the tree: WordNet lemmas of timm")
    if unknown := len(missing) - len(lemmas):
        notes.append(f"{unknown} classes without a name keep their wnid")
    return [described.get(wnid) or lemmas.get(wnid, wnid) for wnid in wnids], notes


def _read_tree(path: Path) -> dict[str, str]:
    from prompt_core.safe_load import load_restricted

    try:
        tree = load_restricted(path)
    except UserError as error:
        raise UserError(
            f"cannot read the class names: {error}; download it again, or delete it to use WordNet names"
        ) from error
    described = tree.get("class_description") if isinstance(tree, dict) else None
    # anything beyond plain containers, such as an array of NumPy, is read as an empty stand-in
    if not isinstance(described, dict) or not all(isinstance(text, str) for text in described.values()):
        raise UserError(f"{path} has no dictionary 'class_description' of texts: expected the winter-21 class tree")
    return {str(wnid): text for wnid, text in described.items()}
