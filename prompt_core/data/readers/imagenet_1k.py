"""ImageNet-1K and the four test sets made for it: ImageNetV2, ImageNet-Sketch, ImageNet-A and ImageNet-R."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import list_folders, list_photos, read_lines
from prompt_core.data.readers.folder import WNID, photos_of_classes
from prompt_core.data.readers.original_lists import read_mat, whole_number
from prompt_core.data.splits import check_split
from prompt_core.errors import UserError

DEVKIT = "ILSVRC2012_devkit_t12/data"
CLASS_NAMES = "classnames.txt"
GROUND_TRUTH = f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"


def imagenet(root: str | Path, split: str) -> ImageSet:
    """ImageNet-1K: ``images/{train,val}/WNID`` (CoOp) or ``{train,val}/WNID`` (ILSVRC, torchvision); test is val.

    Classes are the sorted wnid folders of both splits. A ``val`` of plain files is read with the devkit next to it
    (``ILSVRC2012_devkit_t12/data``: ``meta.mat`` and the ground truth); it has no classes beyond the devkit's 1,000.

    Raises:
        UserError: when a folder or file is missing, or a class has no name.
    """
    root = Path(root)
    check_split(split, ("train", "val", "test"), "ImageNet")
    part = "train" if split == "train" else "val"
    base = root / "images" if (root / "images" / part).is_dir() or not (root / part).is_dir() else root
    if not (base / part).is_dir():
        raise UserError(f"expected ImageNet's {part} photos at {base / part}: no such folder")
    if part == "val" and not _wnid_folders(base / "val") and list_photos(base / "val"):
        return _flat_val(root, base)
    wnids = sorted({*_wnid_folders(base / "train"), *_wnid_folders(base / "val")})
    if not wnids:
        raise UserError(f"no class folders in {base / part}: expected folders such as n01440764")
    names, origin = names_of(wnids, root)
    return _by_wnid(base, part, wnids, names, f"imagenet:{part} ({origin})")


def imagenet_v2(root: str | Path, split: str) -> ImageSet:
    """ImageNetV2, matched frequency: folders 0, 1, …, whose number is the line of ``classnames.txt``, from 0.

    All classes of the list are candidates, whichever have photos.

    Raises:
        UserError: when the folder is missing or empty, or a folder's name is not the number of a class.
    """
    root = Path(root)
    check_split(split, ("val", "test"), "ImageNetV2")
    base = _inner(root, ("imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency"))
    wnids, names, origin = imagenet_classes(root)
    folders = list_folders(base)
    if unknown := [name for name in folders if not (name.isascii() and name.isdigit()) or int(name) >= len(wnids)]:
        raise UserError(f"{base / unknown[0]} is not a class folder of ImageNetV2: expected 0 to {len(wnids) - 1}")
    folders = sorted(folders, key=int)
    keys, places = photos_of_classes(base, folders)
    labels = [int(folders[place]) for place in places]
    if not keys:
        raise UserError(f"no photos in {base}: expected 0/*.jpeg to {len(wnids) - 1}/*.jpeg")
    return ImageSet(names, wnids, np.asarray(labels), keys, f"imagenet_v2:test ({origin})", base)


def imagenet_sketch(root: str | Path, split: str) -> ImageSet:
    """ImageNet-Sketch: wnid folders in ``images`` (CoOp), ``sketch`` (the archive) or the folder itself."""
    return _wnid_test_set(Path(root), ("images", "sketch"), split, "ImageNet-Sketch", "imagenet_sketch")


def imagenet_a(root: str | Path, split: str) -> ImageSet:
    """ImageNet-A: its own 200 wnid folders, in ``imagenet-a`` or the folder itself."""
    return _wnid_test_set(Path(root), ("imagenet-a",), split, "ImageNet-A", "imagenet_a")


def imagenet_r(root: str | Path, split: str) -> ImageSet:
    """ImageNet-R: its own 200 wnid folders, in ``imagenet-r`` or the folder itself."""
    return _wnid_test_set(Path(root), ("imagenet-r",), split, "ImageNet-R", "imagenet_r")


def _wnid_test_set(root: Path, inner: Sequence[str], split: str, title: str, name: str) -> ImageSet:
    check_split(split, ("val", "test"), title)
    base = _inner(root, inner)
    wnids = _wnid_folders(base)
    if not wnids:
        raise UserError(f"no class folders in {base}: expected folders such as n01440764")
    names, origin = names_of(wnids, root)
    return _by_wnid(base, "", wnids, names, f"{name}:test ({origin})")


def _by_wnid(base: Path, part: str, wnids: list[str], names: list[str], source: str) -> ImageSet:
    """Photos in ``base/part/WNID``; a class without a folder or photos keeps its label."""
    keys, labels = photos_of_classes(base, (f"{part}/{wnid}" if part else wnid for wnid in wnids))
    if not keys:
        raise UserError(f"no photos in {base / part}: expected WNID/*.JPEG")
    return ImageSet(names, wnids, np.asarray(labels), keys, source, base)


def _flat_val(root: Path, base: Path) -> ImageSet:
    """Plain files ILSVRC2012_val_00000001.JPEG, …: line n of the ground truth is the class of the n-th file."""
    place = next((path for path in (root, base, root.parent) if (path / GROUND_TRUTH).is_file()), None)
    if place is None:
        raise UserError(
            f"{base / 'val'} has photos but no class folders: expected val/WNID/*.JPEG, or the devkit's ground truth "
            f"at {root / GROUND_TRUTH}"
        )
    synsets = np.atleast_1d(read_mat(place / DEVKIT / "meta.mat", "synsets"))
    if synsets.dtype.names is None or not {"ILSVRC2012_ID", "WNID"} <= set(synsets.dtype.names):
        raise UserError(f"{place / DEVKIT / 'meta.mat'} has no ILSVRC2012_ID and WNID: expected the devkit's file")
    # inner nodes of WordNet have ids too, but no photos
    leaf = "num_children" in synsets.dtype.names
    meta = str(place / DEVKIT / "meta.mat")
    leaves = [row for row in synsets if not leaf or whole_number(row["num_children"], meta) == 0]
    wnid_of = {whole_number(row["ILSVRC2012_ID"], meta): str(row["WNID"]) for row in leaves}
    numbers = read_lines(place / GROUND_TRUTH, "the classes of the val photos")
    keys = [f"val/{name}" for name in list_photos(base / "val")]
    if len(numbers) != len(keys):
        raise UserError(f"{place / GROUND_TRUTH} has {len(numbers)} lines for {len(keys)} photos in {base / 'val'}")
    if unknown := [number for number in numbers if not number.isdigit() or int(number) not in wnid_of]:
        raise UserError(f"{place / GROUND_TRUTH}: {unknown[0]!r} is not an ILSVRC2012_ID of meta.mat")
    wnids = sorted(wnid_of.values())
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    names, origin = names_of(wnids, root)
    labels = [label_of[wnid_of[int(number)]] for number in numbers]
    return ImageSet(names, wnids, np.asarray(labels), keys, f"imagenet:val ({origin}; labels: the devkit)", base)


def _inner(root: Path, inner: Sequence[str]) -> Path:
    """The first of the ``inner`` folders that exists; ``root`` itself where it holds class folders; else the first."""
    for name in inner:
        if (root / name).is_dir():
            return root / name
    classes = list_folders(root) if root.is_dir() else []
    if any(WNID.fullmatch(name) or name.isdigit() for name in classes):
        return root
    raise UserError(f"expected class folders at {root / inner[0]}: no such folder")


def _wnid_folders(folder: Path) -> list[str]:
    return [name for name in list_folders(folder) if WNID.fullmatch(name)] if folder.is_dir() else []


def imagenet_classes(folder: Path) -> tuple[list[str], list[str], str]:
    """Wnids and names in the order of the class ids, and where they come from.

    ``classnames.txt`` (lines ``wnid name``) is looked for in ``folder``, then in ``imagenet`` next to it. Without it,
    names are open_clip's, in the order of timm's list of the 1,000 wnids.

    Raises:
        UserError: when the file is not of that form.
    """
    for path in (folder / CLASS_NAMES, folder.parent / "imagenet" / CLASS_NAMES):
        if path.is_file():
            lines = [line.split(maxsplit=1) for line in read_lines(path, "class names")]
            if any(len(parts) != 2 for parts in lines):
                raise UserError(f"{path}: expected lines of the form 'wnid class name'")
            if len({parts[0] for parts in lines}) != len(lines):
                raise UserError(f"{path}: a wnid occurs twice")
            return [parts[0] for parts in lines], [parts[1] for parts in lines], f"names: {CLASS_NAMES}"
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    wnids = ImageNetInfo("imagenet-1k").label_names()
    return list(wnids), list(IMAGENET_CLASSNAMES), f"names: open_clip's ImageNet list by wnid, no {CLASS_NAMES}"


def names_of(wnids: Sequence[str], folder: Path) -> tuple[list[str], str]:
    """Names of class folders, and where they come from.

    Raises:
        UserError: when a folder is not one of the known classes.
    """
    known, names, origin = imagenet_classes(folder)
    name_of = dict(zip(known, names, strict=True))
    if missing := [wnid for wnid in wnids if wnid not in name_of]:
        raise UserError(f"{len(missing)} class folders in {folder} have no name, the first is {missing[0]} ({origin})")
    return [name_of[wnid] for wnid in wnids], origin
