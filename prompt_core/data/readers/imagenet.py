"""Tiny-ImageNet-200 and the processed winter-21 release of ImageNet-21K, in the layouts they are published in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import (
    inside,
    list_folders,
    read_lines,
    require_file,
    require_folder,
    require_photos,
)
from prompt_core.data.readers.folder import WNID, photos_of_classes, wordnet_names
from prompt_core.data.splits import check_split
from prompt_core.errors import UserError


def tiny_imagenet(root: str | Path, split: str) -> ImageSet:
    """Tiny-ImageNet-200: ``train/WNID/images/*.JPEG``, ``val/images`` with ``val_annotations.txt``.

    Classes are the sorted wnids of ``wnids.txt``; names are the first lemma in ``words.txt``.

    Args:
        root: the folder that holds ``wnids.txt``, or the parent of ``tiny-imagenet-200``.
        split: train or val; the published test photos have no labels.

    Raises:
        UserError: when a file or folder of the layout is missing or does not fit.
    """
    root = Path(root)
    if not (root / "wnids.txt").exists() and (root / "tiny-imagenet-200").is_dir():
        root = root / "tiny-imagenet-200"
    check_split(split, ("train", "val"), "Tiny-ImageNet")
    listed = read_lines(root / "wnids.txt", "the class list of Tiny-ImageNet")
    wnids = sorted({inside(wnid, str(root / "wnids.txt")) for wnid in listed})
    lines = [line.split("\t", 1) for line in read_lines(root / "words.txt", "the class names of Tiny-ImageNet")]
    words = {parts[0]: parts[1].split(",")[0].strip() for parts in lines if len(parts) == 2}
    if missing := [wnid for wnid in wnids if wnid not in words]:
        raise UserError(f"{root / 'words.txt'} has no name for {missing[0]}, which wnids.txt lists")
    keys: list[str] = []
    labels: list[int] = []
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    if split == "train":
        for wnid in wnids:
            require_folder(root / "train" / wnid / "images", "photos of a class")
        keys, labels = photos_of_classes(root, (f"train/{wnid}/images" for wnid in wnids))
    else:
        annotations = root / "val" / "val_annotations.txt"
        for number, line in enumerate(read_lines(annotations, "the labels of the val photos"), start=1):
            parts = line.split("\t")
            if len(parts) < 2 or parts[1] not in label_of:
                raise UserError(f"{annotations}, line {number}: expected 'file<TAB>wnid…' with a wnid of wnids.txt")
            keys.append(f"val/images/{inside(parts[0], f'{annotations}, line {number}')}")
            labels.append(label_of[parts[1]])
        require_photos(root, keys, annotations)
    if not keys:
        raise UserError(f"no {split} photos in {root / split}: expected .JPEG files")
    names = [words[wnid] for wnid in wnids]
    return ImageSet(names, wnids, np.asarray(labels), keys, f"tiny_imagenet:{split}", root)


def imagenet21k(root: str | Path, split: str) -> ImageSet:
    """ImageNet-21K as processed by Ridnik et al. 2021 (winter-21): ``imagenet21k_train`` and ``imagenet21k_val``.

    Labels index the sorted wnid folders of ``imagenet21k_train`` in both splits, so the number of classes is that of
    the data. Val folders may be missing; ones that train lacks are left out and counted in ``source``. Names come
    from ``imagenet21k_miil_tree.pth`` (key ``class_description``); without that file they are WordNet lemmas.
    ``imagenet21k_small_classes`` is not used.

    Args:
        root: the folder that holds ``imagenet21k_train``, or the parent of ``imagenet21k_resized``.
        split: train, val, or test, which is val.

    Raises:
        UserError: when a folder is missing or empty, or the tree file is damaged.
    """
    root = Path(root)
    if not (root / "imagenet21k_train").exists() and (root / "imagenet21k_resized").is_dir():
        root = root / "imagenet21k_resized"
    check_split(split, ("train", "val", "test"), "ImageNet-21K")
    train = root / "imagenet21k_train"
    wnids = [name for name in list_folders(train) if WNID.fullmatch(name)]
    if not wnids:
        raise UserError(f"no class folders in {train}: expected folders such as n01440764")
    part = "imagenet21k_train" if split == "train" else "imagenet21k_val"
    present = {name for name in list_folders(root / part) if WNID.fullmatch(name)}
    keys, labels = photos_of_classes(root, (f"{part}/{wnid}" for wnid in wnids))
    if not keys:
        raise UserError(f"no photos in {root / part}: expected WNID/*.JPEG for the {len(wnids)} folders of {train}")
    names, notes = _tree_names(root / "imagenet21k_miil_tree.pth", wnids)
    if left_out := len(present - set(wnids)):
        notes.append(f"{left_out} val folders not in train left out")
    source = f"imagenet21k:{'train' if split == 'train' else 'val'} ({'; '.join(notes)})"
    return ImageSet(names, wnids, np.asarray(labels), keys, source, root)


def _tree_names(path: Path, wnids: list[str]) -> tuple[list[str], list[str]]:
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
