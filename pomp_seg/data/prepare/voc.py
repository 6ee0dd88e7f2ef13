"""PASCAL VOC 2012 for segmentation: 20 classes, and the 15 base classes for training without the unseen ones.

Which labels are for training is decided by the lists of photos and nothing else. In POMP's copy of the script the base
labels of the validation photos go into the training folder; here a photo of both lists, and a label in a folder that is
not of its list, are errors.
"""

from __future__ import annotations

from pathlib import Path

from pomp_seg.data.prepare.coco_stuff import Made, convert_split
from prompt_core.errors import UserError

# The first place that exists is taken. ``train.txt`` beside the folders is the list of 10,582 photos, with the
# additional labels of SBD; the official list has 1,464.
_LISTS = {
    "train": ("train.txt", "ImageSets/Segmentation/trainaug.txt", "ImageSets/Segmentation/train.txt"),
    "val": ("val.txt", "ImageSets/Segmentation/val.txt"),
}
_LABELS = ("SegmentationClassAug", "SegmentationClass")


def prepare_voc_seg(root: Path, overwrite: bool = False) -> Made:
    """Make ``VOC2012/annotations_detectron2/{train,train_base,val}`` and label counts.

    Source: ``SegmentationClassAug`` or ``SegmentationClass`` (0 background, 1..20, 255 border) and the lists of photos.
    Background is ignored, as by SPNet and all who follow it.

    Raises:
        UserError: a list or a label is missing, a photo is in both lists, or a folder holds labels of other photos.
    """
    voc = root / "VOC2012"
    folder = next((voc / name for name in _LABELS if (voc / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{voc} holds no {_LABELS[0]} and no {_LABELS[1]}; python datasets/check.py voc_seg says how "
                        "to get them")  # fmt: skip
    lists = {split: read_list(voc, places) for split, places in _LISTS.items()}
    both = sorted(set(lists["train"]) & set(lists["val"]))
    if both:
        raise UserError(
            f"{len(both)} photos are in the lists of training and of validation of {voc}, the first is {both[0]}; use "
            "lists that share none"
        )
    made: Made = {}
    for split, names in lists.items():
        sources = {name: folder / f"{name}.png" for name in names}
        for base in (False, True) if split == "train" else (False,):
            made |= convert_split(
                voc / "annotations_detectron2" / (f"{split}_base" if base else split),
                sources,
                "VOC 2012",
                ("voc", "voc_base"),
                base=base,
                ignored=(0, 255),
                counts=base or split == "val",
                overwrite=overwrite,
            )
    return made


def read_list(voc: Path, places: tuple[str, ...]) -> list[str]:
    """Names of photos, sorted; a line may also give the paths of photo and label.

    Raises:
        UserError: when there is no list, or it is empty.
    """
    path = next((voc / place for place in places if (voc / place).is_file()), None)
    if path is None:
        raise UserError(f"{voc} has no list of photos {' or '.join(places)}; python datasets/check.py voc_seg says how "
                        "to get it")  # fmt: skip
    names = {Path(line.split()[0]).stem for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    if not names:
        raise UserError(f"{path} names no photo")
    return sorted(names)
