"""Tiny-ImageNet-200 in the layout that it is published in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import inside, read_lines, require_folder, require_photos
from prompt_core.data.readers.folder import photos_of_classes
from prompt_core.data.readers.winter_21 import imagenet21k as imagenet21k
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
    keys: Sequence[str]
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    if split == "train":
        for wnid in wnids:
            require_folder(root / "train" / wnid / "images", "photos of a class")
        keys, labels = photos_of_classes(root, (f"train/{wnid}/images" for wnid in wnids))
    else:
        annotations = root / "val" / "val_annotations.txt"
        listed_keys, listed_labels = list[str](), list[int]()
        for number, line in enumerate(read_lines(annotations, "the labels of the val photos"), start=1):
            parts = line.split("\t")
            if len(parts) < 2 or parts[1] not in label_of:
                raise UserError(f"{annotations}, line {number}: expected 'file<TAB>wnid…' with a wnid of wnids.txt")
            listed_keys.append(f"val/images/{inside(parts[0], f'{annotations}, line {number}')}")
            listed_labels.append(label_of[parts[1]])
        require_photos(root, listed_keys, annotations)
        keys, labels = listed_keys, np.asarray(listed_labels)
    if not keys:
        raise UserError(f"no {split} photos in {root / split}: expected .JPEG files")
    names = [words[wnid] for wnid in wnids]
    return ImageSet(names, wnids, labels, keys, f"tiny_imagenet:{split}", root)
